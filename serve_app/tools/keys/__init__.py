"""`scripts/keys`: creates, lists and revokes API keys in a keys file."""
