"""Timestamps, as Kubernetes writes them."""

from datetime import UTC, datetime


def now():
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
