"""`make serve`: checks what can be checked, runs `serve run`, tells when it is up or why it is not, cleans up."""
