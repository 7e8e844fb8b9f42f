"""The service on Kubernetes through KubeRay: scenarios to manifests, and the commands that bring them up and down."""
