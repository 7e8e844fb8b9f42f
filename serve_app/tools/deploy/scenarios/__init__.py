"""What a deployment says: its scenario, the Serve configuration that follows, and the files they are kept in."""
