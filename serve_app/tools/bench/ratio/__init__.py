"""`scripts/bench ratio`: the service compared with other servers, and its start, growth and scaling."""
