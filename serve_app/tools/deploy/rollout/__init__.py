"""Changes to a service: preflight checks, apply, diff, history, upgrade and delete."""
