from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.looking.observing import addresses_of, clusters_of, happening_of, machine_of, pod_of


def test_a_pod_is_read_with_its_group_and_its_containers():
    pod = {
        "metadata": {
            "name": "serve-app-abcde-vision-worker-1",
            "labels": {"ray.io/cluster": "serve-app-abcde", "ray.io/group": "vision", "ray.io/node-type": "worker"},
        },
        "spec": {"nodeName": "ip-10-0-0-1"},
        "status": {
            "phase": "Pending",
            "podIP": "10.0.0.7",
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
    assert (seen.group, seen.cluster, seen.node, seen.address, seen.ready) == (
        "vision",
        "serve-app-abcde",
        "ip-10-0-0-1",
        "10.0.0.7",
        False,
    )
    assert seen.unschedulable == ""
    models, ray = seen.containers
    assert (models.init, models.state, models.exit_code) == (True, "terminated", 0)
    assert (ray.reason, ray.restarts, ray.last_reason, ray.last_exit_code) == ("CrashLoopBackOff", 2, "OOMKilled", 137)
    assert ray.last_lines == ("serve-app-abcde-vision-worker-1 ray",)


def test_a_head_is_its_own_group_and_a_pod_without_a_node_says_why():
    pod = {
        "metadata": {"name": "h", "labels": {"ray.io/node-type": "head", "ray.io/group": "headgroup"}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]},
    }
    seen = pod_of(pod, lambda *_: ())
    assert (seen.group, seen.unschedulable, seen.phase) == ("head", "no room", "Pending")


def test_clusters_that_the_service_names_no_more_are_old():
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


def test_a_load_balancer_without_a_name_yet_has_an_empty_address():
    service = {
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "serve", "port": 8000}]},
    }
    assert [one.url for one in addresses_of(service)] == [""]
    service["status"] = {"loadBalancer": {"ingress": [{"hostname": "x.elb.amazonaws.com"}]}}
    assert [one.url for one in addresses_of(service)] == ["http://x.elb.amazonaws.com:8000"]


def test_a_service_inside_the_cluster_has_the_clusters_name_and_no_scheme_where_none_is_known():
    service = {
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"ports": [{"name": "serve", "port": 8000}, {"name": "serve-grpc", "port": 8001}]},
    }
    assert [one.url for one in addresses_of(service)] == ["http://s.n.svc:8000", "s.n.svc:8001"]


def test_a_machine_tells_what_holds_it_up():
    claim = {
        "metadata": {"name": "g5-x", "labels": {"node.kubernetes.io/instance-type": "g5.2xlarge"}},
        "status": {
            "conditions": [{"type": "Launched", "status": "False", "reason": "L", "message": "VcpuLimitExceeded"}]
        },
    }
    machine = machine_of(claim)
    assert (machine.instance_type, machine.ready, machine.problem) == ("g5.2xlarge", False, "VcpuLimitExceeded")


def test_an_event_keeps_what_it_is_about():
    event = {
        "metadata": {"creationTimestamp": "t0"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "reason": "Failed",
        "message": " bad \n",
        "type": "Warning",
        "count": 3,
    }
    seen = happening_of(event)
    assert (seen.about, seen.reason, seen.message, seen.warning, seen.count, seen.at) == (
        "Pod/p",
        "Failed",
        "bad",
        True,
        3,
        "t0",
    )


def test_a_target_knows_its_own_clusters_from_those_of_a_longer_name():
    target = Target("serve-app", "n")
    assert target.owns_cluster("serve-app-x7k2p")
    assert not target.owns_cluster("serve-app-two-x7k2p")
    assert target.owns({"metadata": {"labels": {"ray.io/cluster": "serve-app-x7k2p"}}})
    assert target.owns({"metadata": {"labels": {"app.kubernetes.io/instance": "serve-app"}}})
    assert not target.owns({"metadata": {}})
