from dataclasses import replace

import pytest

from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.looking.explaining import missing_of, reasons_of
from serve_app.tools.deploy.looking.observation import (
    Application,
    Cluster,
    Condition,
    Container,
    Deployment,
    Happening,
    Machine,
    Observation,
    Pod,
)

TARGET = Target("serve-app", "there")
QUOTA = (
    "creating instance, insufficient capacity, with fleet error(s), VcpuLimitExceeded: You have requested more vCPU "
    "capacity than your current vCPU limit of 64 allows for the instance bucket"
)


def service(**changes):
    """One that was applied, seen by the operator, and isn't ready yet."""
    initializing = Condition("Ready", "False", "Initializing", "RayService is initializing")
    seen = Observation(TARGET, exists=True, generation=2, seen_generation=2, conditions=(initializing,))
    return replace(seen, **changes)


def pod(*containers, **changes):
    return Pod("serve-app-abcde-vision-worker-x1", "vision", "serve-app-abcde", containers=containers, **changes)


def application(status, *deployments, message=""):
    return (Cluster("serve-app-abcde", "pending", (Application("serve_app", status, message, deployments),)),)


def texts(seen):
    return [str(reason) for reason in reasons_of(seen)]


def test_a_service_that_only_starts_has_no_trouble():
    assert (
        reasons_of(service(pods=(pod(Container("ray", "vision:1", state="waiting", reason="PodInitializing")),))) == ()
    )


def test_a_service_that_is_not_there_says_how_it_comes():
    assert texts(Observation(TARGET)) == [
        "RayService serve-app: isn't in the namespace there; scripts/deploy up brings it there"
    ]


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named(reason):
    container = Container("ray", "registry/vision:9", reason=reason, message="manifest unknown")
    (found,) = reasons_of(service(pods=(pod(container),)))
    assert found.about == "container ray of vision"
    assert f"can't pull the image registry/vision:9 ({reason}: manifest unknown)" in found.problem
    assert "--set images.registry" in found.advice
    assert found.hopeless == (reason == "InvalidImageName")


def test_a_container_that_crashes_gives_its_status_and_its_last_words():
    container = Container(
        "ray", "v", reason="CrashLoopBackOff", restarts=4, last_exit_code=3, last_lines=("no plans", "giving up")
    )
    (found,) = texts(service(pods=(pod(container),)))
    assert "crashes again and again with status 3; its last words: no plans | giving up" in found
    assert "logs SCENARIO --group vision --container ray --previous" in found


def test_a_container_that_was_killed_for_memory_is_told_from_one_that_crashes():
    container = Container(
        "ray", "v", reason="CrashLoopBackOff", restarts=2, last_reason="OOMKilled", last_exit_code=137
    )
    (found,) = texts(service(pods=(pod(container),)))
    assert "ran out of memory and was killed, 2 times restarted" in found
    assert "--set workers.<role>.memory" in found


@pytest.mark.parametrize(
    "container",
    [
        Container("models", "v", init=True, state="terminated", reason="Error", exit_code=1),
        Container("models", "v", init=True, reason="CrashLoopBackOff", restarts=2, last_exit_code=1),
    ],
)
def test_an_init_container_that_fails_is_named_as_such(container):
    (found,) = texts(service(pods=(pod(container),)))
    assert found.startswith("init container models of vision: fails with status 1")


def test_an_init_container_that_is_done_is_no_trouble():
    done = Container("models", "v", init=True, state="terminated", reason="Completed", exit_code=0)
    assert reasons_of(service(pods=(pod(done),))) == ()


def test_a_missing_secret_shows_as_a_container_that_cannot_start():
    container = Container("ray", "v", reason="CreateContainerConfigError", message='secret "hub" not found')
    assert texts(service(pods=(pod(container),)))[0].startswith(
        'container ray of vision: can\'t start: secret "hub" not found'
    )


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "is there a NodePool that may add one"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "ask for less"),
        ("0/3 nodes are available: 3 node(s) had untolerated taint {gpu: }.", "see pools in the scenario"),
        ("pod has unbound immediate PersistentVolumeClaims", "is its storage class there"),
        ("something else", "kubectl describe pod"),
    ],
)
def test_a_pod_that_no_node_takes_says_what_is_lacking(message, advice):
    (found,) = reasons_of(service(pods=(pod(unschedulable=message),)))
    assert str(found).startswith(f"pods of vision: no node takes them: {message}")
    assert advice in found.advice
    assert not found.hopeless  # nodes come


def test_the_same_trouble_of_many_pods_is_told_once():
    one = pod(unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    assert len(reasons_of(service(pods=(one, replace(one, name="another"))))) == 1


def test_a_pod_that_ends_explains_nothing():
    assert reasons_of(service(pods=(pod(unschedulable="no", ending=True),))) == ()


@pytest.mark.parametrize(
    "told",
    [
        {"machines": (Machine("g5-x", "g5.2xlarge", problem=QUOTA),)},
        {"happenings": (Happening("NodeClaim/g5-x", "InsufficientCapacityError", QUOTA, warning=True),)},
    ],
)
def test_a_quota_comes_first_with_its_number(told):
    waiting = pod(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    first, second = texts(service(pods=(waiting,), **told))
    assert first.startswith(
        "AWS quota: no more machines: the account's vCPU limit of 64 is reached (VcpuLimitExceeded)"
    )
    assert "Service Quotas" in first
    assert second.startswith("pods of vision")


@pytest.mark.parametrize(
    ("pods", "machine", "at"),
    [
        ((), Machine("g5-x", problem=QUOTA), "2026-01-01T00:00:09Z"),  # nobody waits
        ((pod(),), Machine("g5-x", problem=QUOTA), "2026-01-01T00:00:09Z"),
        ((pod(unschedulable="no", made="2026-01-01T00:00:05Z"),), Machine("g5-x", ready=True), "2026-01-01T00:00:04Z"),
    ],
)
def test_a_quota_that_no_longer_binds_is_not_told(pods, machine, at):
    told = Happening("NodeClaim/g5-x", "InsufficientCapacityError", QUOTA, warning=True, at=at)
    assert not [one for one in texts(service(pods=pods, machines=(machine,), happenings=(told,))) if "quota" in one]


def test_capacity_that_aws_lacks_is_not_a_quota():
    problem = "InsufficientInstanceCapacity: no g5.2xlarge in eu-west-1a"
    found, _ = texts(service(pods=(pod(unschedulable="no"),), machines=(Machine("g5-x", problem=problem),)))
    assert "AWS has no such machine free now" in found


def test_serve_names_the_deployment_that_failed_and_its_own_error():
    message = (
        "Traceback (most recent call last):\n  File ...\n"
        "serve_app.errors.ModelLoadError: yolo_nano: no such file model.onnx\nThe deployment failed to start 3 times."
    )
    failed = Deployment("vision", "UNHEALTHY", message)
    (found,) = reasons_of(service(clusters=application("DEPLOY_FAILED", failed, Deployment("router", "HEALTHY"))))
    assert str(found).startswith("deployment vision: UNHEALTHY: yolo_nano: no such file model.onnx")
    assert "scripts/deploy rollback" in found.advice
    assert found.hopeless


def test_an_application_without_deployments_gives_its_last_line():
    (found,) = texts(service(clusters=application("DEPLOY_FAILED", message="Traceback\nImportError: no module x\n")))
    assert found.startswith("application serve_app: DEPLOY_FAILED: ImportError: no module x")


def test_a_deployment_that_is_ill_while_the_rest_goes_on_may_recover():
    (found,) = reasons_of(service(clusters=application("RUNNING", Deployment("vision", "UNHEALTHY", "a replica died"))))
    assert not found.hopeless
    assert "Serve starts its replicas again" in found.advice


def test_a_failure_of_the_generation_before_is_not_final():
    """The operator hasn't looked at the new one yet."""
    seen = service(clusters=application("DEPLOY_FAILED", Deployment("vision", "DEPLOY_FAILED")), generation=3)
    assert not any(reason.hopeless for reason in reasons_of(seen))


def test_the_old_cluster_of_an_upgrade_is_of_no_interest():
    old = Cluster("serve-app-aaaaa", "active", (Application("serve_app", "UNHEALTHY", "it goes"),))
    new = Cluster("serve-app-bbbbb", "pending", (Application("serve_app", "DEPLOYING"),))
    assert reasons_of(service(clusters=(old, new))) == ()


@pytest.mark.parametrize("reason", ["InitializingTimeout", "ValidationFailed"])
def test_what_kuberay_gives_up_is_hopeless(reason):
    """Its observedGeneration stays behind then."""
    condition = Condition("Ready", "False", reason, "because of this")
    found = reasons_of(service(conditions=(condition,), seen_generation=1))[0]
    assert "because of this" in found.problem
    assert found.hopeless


def test_a_refusal_that_was_mended_is_left_over():
    assert reasons_of(service(conditions=(Condition("Ready", "False", "ValidationFailed", "because of this"),))) == ()


def test_the_event_of_an_image_says_more_than_the_container_that_waits():
    waiting = pod(Container("ray", "v:9", reason="ImagePullBackOff", message="Back-off pulling image"))
    event = Happening(f"Pod/{waiting.name}", "Failed", 'Failed to pull image "v:9": not found', warning=True)
    (found,) = texts(service(pods=(waiting,), happenings=(event,)))
    assert '(ImagePullBackOff: Failed to pull image "v:9": not found)' in found
    assert "Back-off" not in found


def test_an_operator_that_does_not_react_is_named():
    (found,) = texts(service(seen_generation=0, conditions=()))
    assert "the KubeRay operator hasn't looked at it yet" in found


def test_what_is_missing_is_counted():
    ready = replace(pod(), name="serve-app-abcde-vision-worker-x2", ready=True)
    seen = service(pods=(pod(), ready), clusters=application("DEPLOYING", Deployment("vision", "UPDATING")))
    assert missing_of(seen) == (
        "pods of vision: 1 of 2 ready",
        "deployment vision of Serve: UPDATING",
        "an endpoint that serves",
    )


def test_a_service_without_applications_lacks_them():
    assert missing_of(service()) == ("the applications of Serve", "an endpoint that serves")


def test_a_long_message_is_cut():
    (found,) = reasons_of(service(pods=(pod(unschedulable="x" * 1000),)))
    assert len(found.problem) < 400
    assert found.problem.endswith("…")
