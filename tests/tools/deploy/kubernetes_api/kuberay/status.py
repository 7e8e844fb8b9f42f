"""A RayService's status, with KubeRay's conditions and reasons."""

from kubernetes_api.conditions import condition, is_true, with_condition

INITIALIZING = ("Initializing", "RayService is initializing")


def cluster_name(status, which):
    return status.get(f"{which}ServiceStatus", {}).get("rayClusterName", "")


def take_clusters(status, active, pending):
    """Takes over what the clusters say of themselves."""
    for which, body in (("active", active), ("pending", pending)):
        part = status.setdefault(f"{which}ServiceStatus", {})
        part.pop("rayClusterStatus", None)
        part.pop("applicationStatuses", None)  # said anew where Serve is asked: in one cluster only
        if body is not None:
            part["rayClusterStatus"] = body.get("status", {})


def conclude(status, body, timed_out):
    """Sets the conditions from the endpoints and clusters that there are."""
    status["observedGeneration"] = body["metadata"]["generation"]
    if not status.get("conditions"):
        status["conditions"] = []
        put(status, "Ready", "False", *INITIALIZING)
        put(status, "UpgradeInProgress", "False", *INITIALIZING)
    if status["numServeEndpoints"] > 0:
        put(status, "Ready", "True", "NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
    elif is_true({"status": status}, "Ready"):
        put(status, "Ready", "False", "ZeroServeEndpoints", "Number of serve endpoints dropped to 0")
    elif timed_out and condition({"status": status}, "Ready")["reason"] == "Initializing":
        status["activeServiceStatus"].pop("rayClusterName", None)
        status["pendingServiceStatus"].pop("rayClusterName", None)
        put(status, "Ready", "False", "InitializingTimeout", timed_out)
    conclude_upgrade(status)
    status["serviceStatus"] = "Running" if is_true({"status": status}, "Ready") else ""


def conclude_upgrade(status):
    active, pending = cluster_name(status, "active"), cluster_name(status, "pending")
    if active and pending:
        why = "BothActivePendingClustersExist", "Both active and pending Ray clusters exist"
        put(status, "UpgradeInProgress", "True", *why)
    elif active:
        why = "NoPendingCluster", "Active Ray cluster exists and no pending Ray cluster"
        put(status, "UpgradeInProgress", "False", *why)
    elif condition({"status": status}, "UpgradeInProgress")["reason"] != "Initializing":
        why = "NoActiveCluster", "No active Ray cluster exists, and the RayService is not initializing."
        put(status, "UpgradeInProgress", "Unknown", *why)


def refuse(status, body, message):
    status.setdefault("conditions", [])
    put(status, "Ready", "False", "ValidationFailed", message)


def put(status, kind, value, reason, message):
    more = {"observedGeneration": status.get("observedGeneration", 0)}
    status["conditions"] = with_condition(status["conditions"], kind, value, reason, message, **more)
