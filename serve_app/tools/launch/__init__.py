"""Starting the service and its monitoring on this machine: `scripts/serve` and `scripts/monitor`."""
