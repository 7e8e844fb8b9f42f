"""The Kubernetes API: connection, objects, tunnels to pods, and the RayService that a command is about."""
