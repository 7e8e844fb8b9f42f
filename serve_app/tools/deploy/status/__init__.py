"""The state of a service: read from the cluster, explained, shown, and waited for."""
