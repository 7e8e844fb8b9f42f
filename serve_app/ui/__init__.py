"""The playground: a web page that is a client of the service like any other."""
