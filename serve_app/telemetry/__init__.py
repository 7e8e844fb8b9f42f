"""Metrics, traces, logs, warm-up and autoscaling policies, shared by all deployments."""
