"""The demo models: how the small weights that ship with the project are made."""
