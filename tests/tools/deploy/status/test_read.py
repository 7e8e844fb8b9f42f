from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.status.model import Event
from serve_app.tools.deploy.status.read import addresses_of, clusters_of, event_of, node_of, pod_of


def test_a_pod_is_read_with_its_group_and_its_containers():
    pod = {
        "metadata": {
            "name": "serve-app-abcde-vision-worker-1",
            "labels": {"ray.io/cluster": "serve-app-abcde", "ray.io/group": "vision", "ray.io/node-type": "worker"},
        },
        "spec": {"nodeName": "ip-10-0-0-1"},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
            "initContainerStatuses": [
                {"name": "models", "image": "v:1", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
            ],
            "containerStatuses": [
                {
                    "name": "ray",
                    "image": "v:1",
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ],
        },
    }
    seen = pod_of(pod, lambda name, container: (f"{name} {container}",))
    assert (seen.group, seen.cluster, seen.node, seen.ready) == ("vision", "serve-app-abcde", "ip-10-0-0-1", False)
    assert seen.unschedulable == ""
    models, ray = seen.containers
    assert (models.init, models.state, models.exit_code) == (True, "terminated", 0)
    assert (ray.reason, ray.restarts, ray.last_reason, ray.last_exit_code) == ("CrashLoopBackOff", 2, "OOMKilled", 137)
    assert ray.last_lines == ("serve-app-abcde-vision-worker-1 ray",)


def test_a_head_is_its_own_group_and_an_unschedulable_pod_has_the_reason():
    pod = {
        "metadata": {"name": "h", "labels": {"ray.io/node-type": "head", "ray.io/group": "headgroup"}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]},
    }
    seen = pod_of(pod, lambda *_: ())
    assert (seen.group, seen.unschedulable, seen.phase) == ("head", "no room", "Pending")


def test_clusters_that_the_service_no_longer_names_are_old():
    status = {
        "activeServiceStatus": {
            "rayClusterName": "a-11111",
            "applicationStatuses": {
                "app": {"status": "RUNNING", "serveDeploymentStatuses": {"d": {"status": "HEALTHY", "message": "m"}}}
            },
        },
        "pendingServiceStatus": {"rayClusterName": ""},
    }
    active, old = clusters_of(status, [{"metadata": {"name": "a-11111"}}, {"metadata": {"name": "a-00000"}}])
    assert (active.name, active.role, old.name, old.role) == ("a-11111", "active", "a-00000", "old")
    assert active.applications[0].up
    assert active.applications[0].deployments[0].message == "m"


def test_an_address_is_the_load_balancers_host_or_the_name_inside_the_cluster():
    ports = [{"name": "serve", "port": 8000}, {"name": "serve-grpc", "port": 8001}]
    service = {"metadata": {"name": "s", "namespace": "n"}, "spec": {"ports": ports}}
    assert [one.url for one in addresses_of(service)] == ["http://s.n.svc:8000", "s.n.svc:8001"]
    service["spec"]["type"] = "LoadBalancer"
    assert [one.url for one in addresses_of(service)] == ["", ""], "AWS hasn't created it yet"
    service["status"] = {"loadBalancer": {"ingress": [{"hostname": "x.elb.amazonaws.com"}]}}
    assert [one.url for one in addresses_of(service)] == ["http://x.elb.amazonaws.com:8000", "x.elb.amazonaws.com:8001"]


def test_a_node_has_the_message_of_its_failed_condition():
    claim = {
        "metadata": {"name": "g5-x", "labels": {"node.kubernetes.io/instance-type": "g5.2xlarge"}},
        "status": {
            "conditions": [{"type": "Launched", "status": "False", "reason": "L", "message": "VcpuLimitExceeded"}]
        },
    }
    node = node_of(claim)
    assert (node.instance_type, node.ready, node.problem) == ("g5.2xlarge", False, "VcpuLimitExceeded")


def test_an_event_is_read_with_its_object():
    event = {
        "metadata": {"creationTimestamp": "t0"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "reason": "Failed",
        "message": " bad \n",
        "type": "Warning",
        "count": 3,
    }
    seen = event_of(event)
    assert seen == Event("Pod/p", "Failed", "bad", warning=True, at="t0", count=3)


def test_a_target_does_not_own_clusters_of_a_longer_name():
    target = Target("serve-app", "n")
    assert target.owns_cluster("serve-app-x7k2p")
    assert not target.owns_cluster("serve-app-two-x7k2p")
    assert target.owns({"metadata": {"labels": {"ray.io/cluster": "serve-app-x7k2p"}}})
    assert target.owns({"metadata": {"labels": {"app.kubernetes.io/instance": "serve-app"}}})
    assert not target.owns({"metadata": {}})
