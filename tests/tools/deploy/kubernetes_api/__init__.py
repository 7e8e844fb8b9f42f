"""A Kubernetes API server for tests: objects over real HTTP, with KubeRay's operator and a kubelet at play."""
