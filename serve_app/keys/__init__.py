"""API keys: whom the keys file names, what each may ask, and how much of it a minute, over all routers."""
