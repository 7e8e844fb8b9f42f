"""The playground: a page for people, which asks the service what any client may ask."""
