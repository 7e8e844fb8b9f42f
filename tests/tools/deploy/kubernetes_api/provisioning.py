"""What a cloud provides: a host name for each Service of type LoadBalancer, a volume for each claim."""


class Provisioning:
    def __init__(self, cluster):
        self.cluster = cluster

    def turn(self):
        for key, service in self.cluster.store.of(("", "services")):
            if service["spec"].get("type") == "LoadBalancer" and not host_of(service):
                name = f"k8s-{key.namespace[:8]}-{key.name[:8]}-{service['metadata']['uid'][:10]}"
                ingress = [{"hostname": f"{name}.elb.us-east-1.amazonaws.com"}]
                self.cluster.store.put(key, service | {"status": {"loadBalancer": {"ingress": ingress}}})
        for key, claim in self.cluster.store.of(("", "persistentvolumeclaims")):
            if claim.get("status", {}).get("phase") != "Bound":
                capacity = claim["spec"].get("resources", {}).get("requests", {})
                status = {"phase": "Bound", "capacity": capacity, "accessModes": claim["spec"].get("accessModes", [])}
                self.cluster.store.put(key, claim | {"status": status})


def host_of(service):
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
    return ingress[0].get("hostname")
