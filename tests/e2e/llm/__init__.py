"""A package, so that its service ends with its last test, before another one starts."""
