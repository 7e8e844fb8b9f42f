"""Kubernetes' control plane: credentials by kubeadm, then etcd, API server, controllers and scheduler."""

import yaml

from tests.kubernetes.cluster import places
from tests.kubernetes.cluster.programs import run, wait_for

VERSION = "v1.34.4"
PKI = places.CERTIFICATES


def write_credentials():
    kubeadm = places.BIN / "kubeadm"
    settings = places.RUN / "kubeadm.yaml"
    cluster = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": VERSION,
        "certificatesDir": str(PKI),
        "controlPlaneEndpoint": places.SERVER.removeprefix("https://"),
        "networking": {"serviceSubnet": places.SERVICES, "podSubnet": places.PODS},
    }
    endpoint = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": places.NODE_IP, "bindPort": 6443},
        "nodeRegistration": {"name": places.NODE, "criSocket": f"unix://{places.CONTAINERD}"},
    }
    settings.write_text(yaml.safe_dump_all([cluster, endpoint]))
    for part in ("ca", "apiserver", "apiserver-kubelet-client", "sa"):
        run(kubeadm, "init", "phase", "certs", part, "--config", settings)
    for user, (name, group) in places.USERS.items():
        groups = ["--org", group] if group else []
        written = run(kubeadm, "kubeconfig", "user", "--client-name", name, *groups, "--config", settings)
        places.kubeconfig(user).write_text(written)


def etcd():
    return (
        "etcd",
        f"--data-dir={places.STATE / 'etcd'}",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync=true",
    )


def api_server():
    return (
        places.BIN / "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={places.NODE_IP}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={places.SERVICES}",
        f"--tls-cert-file={PKI / 'apiserver.crt'}",
        f"--tls-private-key-file={PKI / 'apiserver.key'}",
        f"--client-ca-file={PKI / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI / 'sa.pub'}",
        f"--service-account-signing-key-file={PKI / 'sa.key'}",
        "--authorization-mode=Node,RBAC",
        # the kubelet asks the registry each time, so that an image built again under its tag is not the old one
        "--enable-admission-plugins=NodeRestriction,AlwaysPullImages",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={PKI / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={PKI / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--feature-gates=MutatingAdmissionPolicy=true",  # manifests/small-pods.yaml
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
    )


def controllers():
    return (
        places.BIN / "kube-controller-manager",
        *_authenticated("controllers"),
        f"--service-account-private-key-file={PKI / 'sa.key'}",
        f"--root-ca-file={PKI / 'ca.crt'}",
        "--use-service-account-credentials",
        f"--cluster-cidr={places.PODS}",
        f"--service-cluster-ip-range={places.SERVICES}",
        "--allocate-node-cidrs",
    )


def scheduler():
    return places.BIN / "kube-scheduler", *_authenticated("scheduler")


def _authenticated(user):
    """One of each program, so that none needs a lease to lead."""
    file = places.kubeconfig(user)
    return (
        f"--kubeconfig={file}",
        f"--authentication-kubeconfig={file}",
        f"--authorization-kubeconfig={file}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    )


def kubectl(*arguments, **options):
    return run(places.BIN / "kubectl", f"--kubeconfig={places.kubeconfig('admin')}", *arguments, **options)


def start(programs):
    programs.start("etcd", *etcd())
    programs.start("api-server", *api_server())
    wait_for("Kubernetes' API server", answers)
    programs.start("controllers", *controllers())
    programs.start("scheduler", *scheduler())


def answers():
    try:
        return kubectl("get", "--raw", "/readyz") == "ok"
    except SystemExit:
        return False
