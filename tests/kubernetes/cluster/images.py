"""The images of the pods: built by buildah from the project's own Dockerfile and from programs, and pushed."""

import hashlib
import os
import shutil
from pathlib import Path

from tests.kubernetes.cluster import places
from tests.kubernetes.cluster.programs import run

STORAGE = places.FOLDER / "buildah"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # those of this machine, which may have an authority of its own
DOCKERFILE = places.ROOT / "kuberay/images/cpu.Dockerfile"
PACKAGES = places.ROOT / "kuberay/images/requirements/cpu.txt"
CPU = "serve-app/cpu:0.1.0"
LABORATORY, MODELS = "serve-app/cpu:laboratory", places.ROOT / "tests" / "triton" / "embedded" / "models"
REDIS = "library/redis:7.4.2-bookworm"  # what manifests name; it is Debian's 7.0
# The image, the path in it, and the user; DNS binds port 53. The operator's path is what others see as its name.
PROGRAMS = {
    "pause": ("serve-app/pause:1", "/pause", "65535:65535"),
    "kuberay-operator": ("kuberay/operator:v1.6.2", "/manager", "65532:65532"),
    "coredns": ("serve-app/coredns:1", "/coredns", "0:0"),
}
BASE, UV = "localhost/python:3.11-slim-bookworm", "localhost/uv:0.13.8"


def push_programs():
    for program, (image, path, user) in PROGRAMS.items():
        container = buildah("from", "scratch").strip()
        buildah("add", "--quiet", "--chmod", "755", container, str(places.BIN / program), path)
        buildah("config", "--entrypoint", f'["{path}"]', "--user", user, container)
        buildah("commit", "--quiet", "--rm", container, image)
        push(image)


def push_cpu():
    """The layer of packages is built again only if what it is made of has changed."""
    if not exists(BASE):
        build_base()
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, str(places.ROOT / ".uv/bin/uv"), "/uv")
    buildah("commit", "--quiet", "--rm", container, UV)
    # buildah 1.28 knows no `--network` there; nothing is reached from this build in any case
    text = DOCKERFILE.read_text().replace("RUN --network=none ", "RUN ")
    key, built = hashlib.sha256(text.encode() + PACKAGES.read_bytes()).hexdigest(), places.FOLDER / "cpu.key"
    cached = built.exists() and built.read_text() == key
    (places.FOLDER / "cpu.Dockerfile").write_text(text)
    arguments = ("UV_IMAGE=localhost/uv", "BASE_IMAGE=localhost/python")
    buildah(
        *("bud", "--quiet", "--layers", "--network", "host", *([] if cached else ["--no-cache"])),
        *(part for one in arguments for part in ("--build-arg", one)),
        *("--file", str(places.FOLDER / "cpu.Dockerfile"), "--tag", CPU, str(places.ROOT)),
    )
    built.write_text(key)
    push(CPU)


def push_laboratory():
    """Another version of the same image: beside the detectors a model that streams for as long as it is asked to."""
    container = buildah("from", CPU).strip()
    buildah("add", "--quiet", container, str(MODELS / "decoupled"), "/srv/serve_app/model_repository/cpu/decoupled")
    buildah("commit", "--quiet", "--rm", container, LABORATORY)
    push(LABORATORY)


def push_redis():
    if not exists(REDIS):
        build_debian(REDIS, "redis-server")
    push(REDIS)


def build_base():
    """In place of Docker's python:3.11-slim-bookworm, which is the same Debian."""
    build_debian(BASE, "ca-certificates,procps,python3,python3.11,libpython3.11")


def build_debian(image, packages):
    root = places.FOLDER / "base"
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root))
    certificates = Path(f"{root}{CERTIFICATES}")
    certificates.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CERTIFICATES, certificates)
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, str(root), "/")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    buildah("config", "--env", path, "--env", f"SSL_CERT_FILE={CERTIFICATES}", container)
    buildah("commit", "--quiet", "--rm", container, image)
    shutil.rmtree(root)


def push(image):
    target = f"docker://{places.REGISTRY_HOST}/{image}"
    buildah("push", "--quiet", "--tls-verify=false", "--disable-compression", image, target)


def exists(image):
    return image.removeprefix("localhost/").partition(":")[0] in buildah("images", "--format", "{{.Name}}")


def buildah(*arguments):
    storage = ("--root", str(STORAGE), "--runroot", str(STORAGE / "run"), "--storage-driver", "overlay")
    return run("buildah", *storage, *arguments, env=os.environ | {"BUILDAH_ISOLATION": "chroot"})
