"""What a test has asked to go wrong.

A trouble names whom it meets: `group` (a worker group, or `head`), `pod` (part of a pod's name), `cluster` (part of a
RayCluster's name), `container`; without any of them it meets every pod of Ray. What ails Serve
may name a `config` too: part of the serveConfigV2.
"""

PODS = ("unschedulable", "quota", "image_pull", "init_failed", "crash_loop", "oom_killed", "not_ready")
SERVICES = (
    "serve_failed",
    "serve_unhealthy",
    "initializing_timeout",
    "invalid",
    "no_operator",
)
KNOWN = PODS + SERVICES


class Troubles:
    def __init__(self):
        self.active: list[dict] = []

    def add(self, trouble):
        if trouble.get("trouble") not in KNOWN:
            raise ValueError(f"no such trouble: {trouble.get('trouble')!r}; there are {', '.join(KNOWN)}")
        self.active.append(trouble)

    def heal(self, name=None):
        self.active = [one for one in self.active if name is not None and one["trouble"] != name]

    def named(self, name):
        return next((one for one in self.active if one["trouble"] == name), None)

    def serving(self, cluster, config):
        """What ails Serve in a RayCluster of that name, with that configuration."""
        ailments = [one for one in self.active if one["trouble"] in ("serve_failed", "serve_unhealthy")]
        met = (one for one in ailments if meets_cluster(one, cluster) and one.get("config", "") in config)
        return next(met, None)

    def of_pod(self, pod):
        """What ails a pod; nothing ails those that aren't Ray's unless they are named."""
        labels = pod["metadata"].get("labels", {})
        for one in self.active:
            if one["trouble"] in PODS and meets_pod(one, pod["metadata"]["name"], labels):
                return one
        return None


def meets_cluster(trouble, cluster):
    return trouble.get("cluster", "") in cluster


def meets_pod(trouble, name, labels):
    if "pod" in trouble:
        return trouble["pod"] in name
    if "ray.io/cluster" not in labels or not meets_cluster(trouble, labels["ray.io/cluster"]):
        return False
    group = trouble.get("group")
    return group is None or group == labels.get("ray.io/group") or group == labels.get("ray.io/node-type")
