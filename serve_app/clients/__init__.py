"""What a person runs against a server that is up: nothing here imports the server."""
