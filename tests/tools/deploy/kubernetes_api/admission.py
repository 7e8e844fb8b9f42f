"""What the server fills in before it keeps an object, as defaulting and admission do."""

import base64
import random

from kubernetes_api.times import now

LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes names of


def random_suffix(length=5):
    return "".join(random.choices(LETTERS, k=length))


def address(first):
    return f"{first}.{random.randint(0, 255)}.{random.randint(0, 255)}.{random.randint(1, 254)}"


def complete(kind, body, live):
    """Fills the body in, in place."""
    fill = FILLED.get(kind.kind)
    if fill and kind.schema is None:
        fill(body, live)
    return body


def namespace(body, live):
    body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body["metadata"]["name"]
    body.setdefault("spec", {"finalizers": ["kubernetes"]})
    body["status"] = (live or {}).get("status", {"phase": "Active"})


def secret(body, live):
    plain = body.pop("stringData", {})
    if plain:
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
        body["data"] = body.get("data", {}) | encoded
    body.setdefault("type", "Opaque")


def service(body, live):
    spec = body.setdefault("spec", {})
    old = (live or {}).get("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("clusterIP", old.get("clusterIP") or address("10"))
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("internalTrafficPolicy", "Cluster")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    body.setdefault("status", {"loadBalancer": {}})


def pod(body, live):
    spec = body["spec"]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("serviceAccountName", "default")
    body.setdefault("status", {"phase": "Pending", "qosClass": "Burstable"})


def workload(body, live):
    spec = body["spec"]
    spec.setdefault("replicas", 1)
    body.setdefault("status", {})


def definition(body, live):
    names = body["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    when = body["metadata"]["creationTimestamp"]
    established = {
        "type": "Established",
        "reason": "InitialNamesAccepted",
        "message": "the initial names have been accepted",
    }
    accepted = {"type": "NamesAccepted", "reason": "NoConflicts", "message": "no conflicts found"}
    conditions = [one | {"status": "True", "lastTransitionTime": when} for one in (accepted, established)]
    stored = [version["name"] for version in body["spec"]["versions"] if version.get("storage")]
    body["status"] = {"acceptedNames": names, "conditions": conditions, "storedVersions": stored}


def event(body, live):
    body.setdefault("firstTimestamp", now())
    body.setdefault("lastTimestamp", body["firstTimestamp"])


FILLED = {
    "Namespace": namespace,
    "Secret": secret,
    "Service": service,
    "Pod": pod,
    "Deployment": workload,
    "StatefulSet": workload,
    "CustomResourceDefinition": definition,
    "Event": event,
}
