"""The Services that KubeRay makes: of a RayCluster's head, of a RayService's head, and of what it serves."""

DEFAULT_PORTS = {"client": 10001, "gcs-server": 6379, "dashboard": 8265, "metrics": 8080, "serve": 8000}


def head_labels(name):
    return {
        "app.kubernetes.io/created-by": "kuberay-operator",
        "app.kubernetes.io/name": "kuberay",
        "ray.io/cluster": name,
        "ray.io/identifier": f"{name}-head",
        "ray.io/node-type": "head",
    }


def head_service(body):
    """Of a RayCluster."""
    name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
    labels = head_labels(name)
    ports = [
        {"name": port, "port": number, "targetPort": number, "protocol": "TCP", "appProtocol": "tcp"}
        for port, number in sorted(ports_of(body["spec"]).items())
    ]
    spec = {"clusterIP": "None", "type": "ClusterIP", "selector": labels, "ports": ports}
    return {"metadata": {"name": f"{name}-head-svc", "namespace": namespace, "labels": labels}, "spec": spec}


def head_service_of_service(rayservice, raycluster):
    name = rayservice["metadata"]["name"]
    service = head_service(raycluster)
    labels = {"ray.io/identifier": f"{name}-head", "ray.io/node-type": "head"} | origin(rayservice)
    service["metadata"] |= {"name": f"{name}-head-svc", "labels": labels}
    return service


def serve_service(rayservice, raycluster):
    """Selects the pods that serve."""
    name, namespace = rayservice["metadata"]["name"], rayservice["metadata"]["namespace"]
    number = ports_of(raycluster["spec"]).get("serve", 8000)
    ports = [{"name": "serve", "port": number, "targetPort": number, "protocol": "TCP"}]
    selector = {"ray.io/cluster": raycluster["metadata"]["name"], "ray.io/serve": "true"}
    labels = {"ray.io/serve": f"{name}-serve"} | origin(rayservice)
    metadata = {"name": f"{name}-serve-svc", "namespace": namespace, "labels": labels}
    return {"metadata": metadata, "spec": {"ports": ports, "selector": selector}}


def reference(body):
    metadata = body["metadata"]
    named = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return named | {"controller": True, "blockOwnerDeletion": True}


def origin(rayservice):
    name = rayservice["metadata"]["name"]
    return {"ray.io/originated-from-cr-name": name, "ray.io/originated-from-crd": "RayService"}


def ports_of(spec):
    """By name: the head container's, or KubeRay's own where it has none."""
    listed = spec["headGroupSpec"]["template"]["spec"]["containers"][0].get("ports") or ()
    ports = {port.get("name", f"{port['containerPort']}-port"): port["containerPort"] for port in listed}
    return {"metrics": 8080} | (ports or DEFAULT_PORTS)
