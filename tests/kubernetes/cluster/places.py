"""Where the cluster keeps what it builds, what it writes while it runs, and at which addresses it answers."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".kubernetes"
BIN = FOLDER / "bin"
KUBERAY = FOLDER / "kuberay"  # the operator's own CRDs and role
REGISTRY = FOLDER / "registry"
IMAGES = FOLDER / "containerd"
RUN = FOLDER / "run"  # of one cluster: gone when it ends
LOGS, CREDENTIALS, CERTIFICATES, KUBELET = RUN / "logs", RUN / "credentials", RUN / "pki", RUN / "kubelet"
STATE = RUN / "state"  # in memory, and only in the cluster's own mount namespace
PID = RUN / "pid"
MANIFESTS = Path(__file__).parent / "manifests"

NODE = "node1"
NODE_IP, HOST_IP = "10.200.0.1", "10.200.0.2"
PODS, SERVICES, DNS = "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10"
REGISTRY_HOST = f"{NODE_IP}:5000"
SERVER = f"https://{NODE_IP}:6443"
CONTAINERD = "/run/serve-app-containerd.sock"

# Groups: the administrator's is Kubernetes' own, the others are those of kuberay/README.md.
USERS = {
    "admin": ("admin", "system:masters"),
    "deployer": ("deployer", "serve-app:deployers"),
    "viewer": ("viewer", "serve-app:viewers"),
    "nobody": ("nobody", "nothing"),
    "controllers": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}


def kubeconfig(user: str) -> Path:
    return CREDENTIALS / f"{user}.yaml"
