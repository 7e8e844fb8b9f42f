"""What a person runs: each folder is one command, or a few that belong together; the service imports none of it."""
