"""The one node: its network, the registry that it pulls from, containerd, kubelet and kube-proxy."""

import json

import yaml

from tests.kubernetes.cluster import places
from tests.kubernetes.cluster.programs import run, wait_for

INTERFACE = "node"  # the end of the pair whose other end the host has


def connect():
    """Take the interface that the host hands over, and let packets pass between it and the pods."""
    wait_for("the node's network interface", lambda: INTERFACE in run("ip", "-o", "link"))
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{places.NODE_IP}/30", "dev", INTERFACE)
    run("ip", "link", "set", INTERFACE, "up")
    run("ip", "route", "add", "default", "via", places.HOST_IP)
    run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")


def start(programs):
    programs.start("registry", "docker-registry", "serve", write_registry())
    programs.start("containerd", "containerd", "--config", write_containerd())
    wait_for("containerd", lambda: "CONTAINER" in containers())
    programs.start("kubelet", *kubelet())
    programs.start("proxy", places.BIN / "kube-proxy", f"--config={write_proxy()}")


def containers():
    try:
        return run("ctr", "--address", places.CONTAINERD, "--namespace", "k8s.io", "containers", "list")
    except SystemExit:
        return ""


def write_registry():
    return _write(
        "registry.yaml",
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(places.REGISTRY)}},
            "http": {"addr": places.REGISTRY_HOST},
        },
    )


def write_containerd():
    """Every image comes from the registry above, whatever host its name has."""
    hosts = places.RUN / "registries" / "_default"
    hosts.mkdir(parents=True, exist_ok=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{places.REGISTRY_HOST}"]\ncapabilities = ["pull", "resolve"]\n')
    network = places.RUN / "cni"
    network.mkdir(exist_ok=True)
    (network / "10-pods.conflist").write_text(json.dumps(pod_network()))
    path = places.RUN / "containerd.toml"
    path.write_text(f"""
version = 2
root = "{places.IMAGES}"
state = "{places.STATE / "containerd"}"
[grpc]
  address = "{places.CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "serve-app/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE runc can't lower it
  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{hosts.parent}"
""")
    return path


def pod_network():
    subnet = places.PODS.replace("/16", "/24")
    ranges = {"ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": str(places.STATE / "ipam")}
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            bridge | {"ipam": ranges | {"type": "host-local"}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet():
    resolver = places.RUN / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(places.CERTIFICATES / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [places.DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{places.CONTAINERD}",
        "resolvConf": str(resolver),
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "2Gi"},
        "maxPods": 60,
    }
    return (
        places.BIN / "kubelet",
        f"--config={_write('kubelet.yaml', settings)}",
        f"--kubeconfig={places.kubeconfig('kubelet')}",
        f"--hostname-override={places.NODE}",
        f"--node-ip={places.NODE_IP}",
        f"--root-dir={places.KUBELET}",
    )


def write_proxy():
    return _write(
        "proxy.yaml",
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": places.PODS,
            "hostnameOverride": places.NODE,
            "clientConnection": {"kubeconfig": str(places.kubeconfig("proxy"))},
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
    )


def _write(name, settings):
    path = places.RUN / name
    path.write_text(yaml.safe_dump(settings))
    return path
