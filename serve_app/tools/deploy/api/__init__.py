"""Kubernetes' API: the connection, its objects, and which of them a command is about."""
