"""The one ingress: transports that parse, call a deployment by its handle, and answer. It imports no engine."""
