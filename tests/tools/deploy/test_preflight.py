import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.changing.preflight import split_by_kind

MONITOR = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PodMonitor",
    "metadata": {"name": "ray", "namespace": "n"},
}
GATEWAY = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "n"}}
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "n"}}


@pytest.fixture
def objects(kubernetes):
    return Objects(connect(kubernetes.kubeconfig))


def test_monitoring_is_applied_where_the_cluster_has_it(objects):
    assert split_by_kind(objects, [ACCOUNT, MONITOR]) == ([ACCOUNT, MONITOR], [])


def test_monitoring_is_left_out_where_no_prometheus_operator_is_and_this_is_said(objects, kubernetes):
    kubernetes.control(reset={"crds": False})
    kept, notes = split_by_kind(objects, [ACCOUNT, MONITOR])
    assert kept == [ACCOUNT]
    assert notes == [
        "skipped PodMonitor ray: the cluster has no monitoring.coreos.com (kube-prometheus-stack isn't installed)"
    ]


def test_any_other_kind_that_the_cluster_lacks_is_an_error(objects):
    with pytest.raises(
        ConfigurationError, match=r"doesn't know the kind of Gateway g \(gateway\.networking\.k8s\.io/v1\)"
    ):
        split_by_kind(objects, [GATEWAY, ACCOUNT])
