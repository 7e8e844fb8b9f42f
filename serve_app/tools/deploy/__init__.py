"""The service on Kubernetes through KubeRay: manifests from scenarios, and the commands of `scripts/deploy`."""
