"""A head whose state is kept in Redis: killed, it comes back, and meanwhile the workers go on."""

import httpx
import pytest

from tests.kubernetes.cluster import places
from tests.kubernetes.conftest import MANY_PODS, NAMESPACE, answers_chats, take_down
from tests.load import PICTURE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
KEPT = (MANY_PODS, "--set", "head_store={}", "--set", "drain_s=60")
VOLUME = {
    "apiVersion": "v1",
    "kind": "PersistentVolume",
    "metadata": {"name": "redis"},
    "spec": {
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Delete",
        "hostPath": {"path": str(places.RUN / "redis")},
    },
}


@pytest.fixture(scope="module")
def kept(kubernetes, deploy, table):
    """Workers, and a head with a real Redis beside it."""
    folder = places.RUN / "redis"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    kubernetes.apply(VOLUME)
    kubernetes.kubectl("create", "namespace", NAMESPACE)
    password = ("--from-literal=password=a-password",)
    kubernetes.kubectl("create", "secret", "generic", "serve-app-redis", f"--namespace={NAMESPACE}", *password)
    ended = deploy("up", *KEPT)
    table.append(f"| a head with Redis and three workers from nothing to serving | {ended.seconds:.0f} | | |")
    answers_chats(kubernetes)
    yield kubernetes.url()
    take_down(deploy, table, "a head with Redis and its workers", *KEPT)
    for kind, name in (("namespace", NAMESPACE), ("persistentvolume", "redis")):
        kubernetes.kubectl("delete", kind, name, "--ignore-not-found")


def test_a_killed_head_comes_back_and_nobody_notices(kept, kubernetes, deploy, case):
    (head,) = kubernetes.pods("headgroup")
    workers = {*kubernetes.pods("routers"), *kubernetes.pods("vision"), *kubernetes.pods("llm")}
    with case("the head's pod killed, its state in Redis", kept):
        kubernetes.kubectl("delete", "pod", head, f"--namespace={NAMESPACE}", "--grace-period=0", "--force")
        kubernetes.until(lambda: set(kubernetes.ready("headgroup")) - {head}, "another head")
        kubernetes.until(lambda: deploy("status", *KEPT, expect=None).status == 0, "the service is serving")
    assert workers <= {*kubernetes.pods("routers"), *kubernetes.pods("vision"), *kubernetes.pods("llm")}
    assert httpx.post(f"{kept}/predict/nano", content=PICTURE, timeout=60).json()["num_detections"] == 6
