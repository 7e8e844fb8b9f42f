"""New clusters and back, under load; and services beside each other. With pictures alone, as all stand at once."""

import httpx
import pytest

from tests.kubernetes.conftest import NAMESPACE, PICTURES
from tests.load import PICTURE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
CHANGED = ("--set", "images.tag=laboratory", "--set", "changes.detection.confidence=0.3")


def image(kubernetes):
    """Of the cluster that serves; the one before may not have ended yet."""
    cluster = kubernetes.active_cluster()
    (head,) = kubernetes.objects("pods", selector=f"ray.io/node-type=head,ray.io/cluster={cluster}")
    return head["spec"]["containers"][0]["image"]


def test_an_upgrade_in_stages_keeps_the_running_cluster_as_it_is(pictures, kubernetes, deploy, case):
    """Another image needs a new cluster, and the confidence comes with it."""
    cluster = kubernetes.active_cluster()
    plain = deploy("diff", *PICTURES, *CHANGED, expect=1)
    assert "new cluster" in plain.out
    assert "the running cluster takes the new configuration at once as well" in plain.out
    with case("another image: a new cluster, then its configuration", pictures, chats=0):
        ended = deploy("upgrade", *PICTURES, *CHANGED, "--strategy", "staged")
    assert ended.out.index("first stage") < ended.out.index("second stage")
    assert kubernetes.active_cluster() != cluster
    assert image(kubernetes).endswith(":laboratory")


def test_rollback_goes_back_to_the_image_and_the_configuration_before(pictures, kubernetes, deploy, case):
    with case("rollback to the image before, in a new cluster", pictures, chats=0):
        deploy("rollback", *PICTURES, "--to", "1")
    assert "serving" in deploy("status", *PICTURES).out
    assert image(kubernetes).endswith(":0.1.0")


def test_services_beside_each_other_leave_each_other_alone(pictures, kubernetes, deploy, case):
    """One more in the namespace, one in another; then both go, and the first has noticed nothing."""
    second, elsewhere = ("--set", "name=second"), ("--namespace", "elsewhere")
    with case("two more services come and go, in its namespace and in another", pictures, chats=0):
        deploy("up", *PICTURES, *second)
        deploy("up", *PICTURES, *elsewhere)
        for url in (kubernetes.url(name="second"), kubernetes.url("elsewhere")):
            assert httpx.post(f"{url}/predict/nano", content=PICTURE, timeout=60).json()["num_detections"] == 6
        for policy in kubernetes.objects("networkpolicies"):
            name = policy["metadata"]["labels"]["app.kubernetes.io/instance"]
            labels = policy["spec"]["podSelector"]["matchLabels"]
            assert labels["app.kubernetes.io/instance"] == name, "of its own pods alone"
        kept = deploy("down", *PICTURES, *second, "--yes")
        assert f"Namespace/{NAMESPACE} is kept" in kept.out
        deploy("down", *PICTURES, *elsewhere, "--yes")
    assert kubernetes.kubectl("get", "namespace", "elsewhere").returncode != 0
    left = {
        one["metadata"]["labels"].get("app.kubernetes.io/instance") for one in kubernetes.objects("networkpolicies")
    }
    assert left == {"serve-app"}
