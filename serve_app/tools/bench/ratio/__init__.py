"""The service against what it replaces: both measured in turn in one run, and the ratio with its spread."""
