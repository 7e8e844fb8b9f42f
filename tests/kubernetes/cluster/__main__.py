"""A Kubernetes of one node in namespaces of this machine: `up` starts it, `down` ends it without a trace."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from tests.kubernetes.cluster import addons, control_plane, images, node, places
from tests.kubernetes.cluster.programs import Programs, run, wait_for

HERE, LINK = "tests.kubernetes.cluster", "serve-app"
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc")


def up():
    """Namespaces first, so that all that follows ends with their first process."""
    if running():
        sys.exit("error: the cluster is already running; make kubernetes-down ends it")
    tidy()
    for folder in (places.LOGS, places.CREDENTIALS, places.KUBELET, places.STATE, places.REGISTRY, places.IMAGES):
        folder.mkdir(parents=True, exist_ok=True)
    control_plane.write_credentials()
    with (places.LOGS / "programs.log").open("wb") as log:
        outer = subprocess.Popen(
            ["unshare", *NAMESPACES, sys.executable, "-m", HERE, "inside"],
            cwd=places.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    wait_for("the namespaces", lambda: psutil.Process(outer.pid).children(), 10)
    places.PID.write_text(str(psutil.Process(outer.pid).children()[0].pid))
    connect(places.PID.read_text())
    wait_for("Kubernetes' API server", lambda: outer.poll() is None and control_plane.answers())
    print("the control plane answers", flush=True)
    images.push_programs()
    images.push_cpu()
    images.push_laboratory()
    images.push_redis()
    print("images are pushed", flush=True)
    addons.apply()
    print(f"export KUBECONFIG={places.kubeconfig('admin')}")


def connect(pid):
    """A pair of interfaces: this machine reaches the node, the pods and the services through its end."""
    run("ip", "link", "add", LINK, "type", "veth", "peer", "name", node.INTERFACE, "netns", pid)
    run("ip", "address", "add", f"{places.HOST_IP}/30", "dev", LINK)
    run("ip", "link", "set", LINK, "up")
    for network in (places.PODS, places.SERVICES):
        run("ip", "route", "add", network, "via", places.NODE_IP)


def inside():
    """In the namespaces, as their first process."""
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "tmpfs", "tmpfs", str(places.STATE))
    node.connect()
    programs = Programs(places.LOGS)
    control_plane.start(programs)
    node.start(programs)
    programs.watch()


def down():
    if process := running():
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    tidy()


def running():
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        process = psutil.Process(int(places.PID.read_text()))
        return process if "inside" in process.cmdline() else None
    return None


def tidy():
    """What outlives the processes: files, the control groups of pods, and what buildah has mounted."""
    shutil.rmtree(places.RUN, ignore_errors=True)
    for group in sorted(Path("/sys/fs/cgroup").glob("**/kubepods/**/"), reverse=True):
        with suppress(OSError):
            group.rmdir()
    mounted = [one.mountpoint for one in psutil.disk_partitions(all=True)]
    for path in sorted((one for one in mounted if one.startswith(f"{places.FOLDER}/")), reverse=True):
        run("umount", path)


if __name__ == "__main__":
    commands = {"up": up, "down": down, "inside": inside}
    parser = argparse.ArgumentParser(prog=f"python -m {HERE}", description=__doc__)
    parser.add_argument("command", choices=commands)
    if os.geteuid():
        sys.exit("error: a cluster needs root: it makes namespaces and mounts")
    commands[parser.parse_args().command]()
