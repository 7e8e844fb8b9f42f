"""KubeRay's operator at play: what it makes of RayServices and RayClusters, and what troubles it."""
