"""What the cluster has before the service: DNS, KubeRay's operator, and a policy that lets pods fit on two cores."""

from tests.kubernetes.cluster import places
from tests.kubernetes.cluster.control_plane import kubectl
from tests.kubernetes.cluster.programs import wait_for


def apply():
    wait_for("the node", lambda: " Ready " in kubectl("get", "nodes"))
    kubectl("apply", "--server-side", f"--filename={places.KUBERAY / 'crd/bases'}")
    kubectl("apply", f"--filename={places.KUBERAY / 'rbac/role.yaml'}")
    kubectl("apply", f"--filename={places.MANIFESTS}")
    kubectl("--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
    kubectl("--namespace=kuberay-system", "rollout", "status", "deployment/kuberay-operator", "--timeout=120s")
