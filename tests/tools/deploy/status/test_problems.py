from dataclasses import replace

from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.status.model import (
    Application,
    Cluster,
    Condition,
    Container,
    Deployment,
    Event,
    Node,
    Pod,
    ServiceStatus,
)
from serve_app.tools.deploy.status.problems import problems_of

TARGET = Target("serve-app", "there")
QUOTA = (
    "creating instance, insufficient capacity, with fleet error(s), VcpuLimitExceeded: You have requested more vCPU "
    "capacity than your current vCPU limit of 64 allows for the instance bucket"
)


def service(**changes):
    """Applied, observed by the operator, and not ready yet."""
    initializing = Condition("Ready", "False", "Initializing", "RayService is initializing")
    seen = ServiceStatus(TARGET, exists=True, generation=2, observed_generation=2, conditions=(initializing,))
    return replace(seen, **changes)


def pod(*containers, **changes):
    return Pod("serve-app-abcde-vision-worker-x1", "vision", "serve-app-abcde", containers=containers, **changes)


def with_pod(*containers, **changes):
    return service(pods=(pod(*containers, **changes),))


def serve(status, *deployments, message="", **changes):
    application = Application("serve_app", status, message, deployments)
    return service(clusters=(Cluster("serve-app-abcde", "pending", (application,)),), **changes)


def condition(reason, **changes):
    return service(conditions=(Condition("Ready", "False", reason, "because of this"),), **changes)


def container(name="ray", **more):
    return Container(name, "registry/vision:9", **more)


PULL_EVENT = Event(f"Pod/{pod().name}", "Failed", 'Failed to pull image "v:9": not found', warning=True)
OLD_CLUSTER = Cluster("serve-app-aaaaa", "active", (Application("serve_app", "UNHEALTHY", "replaced"),))
NEW_CLUSTER = Cluster("serve-app-bbbbb", "pending", (Application("serve_app", "DEPLOYING"),))


def test_nothing_is_reported_while_a_service_starts_normally():
    done = container("models", init=True, state="terminated", reason="Completed", exit_code=0)
    for seen in (
        with_pod(container(reason="PodInitializing")),
        with_pod(done),
        with_pod(unschedulable="no", deleting=True),
        service(clusters=(OLD_CLUSTER, NEW_CLUSTER)),
        condition("ValidationFailed"),  # left over from an older generation
    ):
        assert problems_of(seen) == (), seen


def test_replicas_that_wait_and_that_fail_to_start_are_named_with_what_serve_says():
    room = (
        "Deployment 'vision' in application 'serve_app' has 2 replicas that have taken more than 30s to be scheduled. "
        "This may be due to waiting for the cluster to auto-scale or for a runtime environment to be installed. "
        'Resources required for each replica: {"CPU": 1.0}, total resources available: {"CPU": 0.15}. '
        "Use `ray status` for more details."
    )
    compiler = (
        "A replica failed to start with exception. Retrying 2 more time(s). Error:\n"
        'Traceback (most recent call last):\n  File "x.py", line 1\n'
        "torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found\n"
        "RuntimeError: Engine core initialization failed.\n"
    )
    slow = (
        "Deployment 'demo-llm' in application 'serve_app' has 1 replicas that have taken more than 30s to initialize.\n"
        "This may be caused by a slow __init__ or reconfigure method."
    )
    for message, problem in (
        (room, '2 replicas wait for room for {"CPU": 1.0}, and free are {"CPU": 0.15}; it starts once there is room: '),
        (
            compiler,
            "a replica failed to start, and Serve tries again: RuntimeError: Engine core initialization failed.; ",
        ),
        (slow, "1 replica waits long for its model or engine to start; see scripts/deploy logs --deployment"),
    ):
        (found,) = problems_of(serve("DEPLOYING", Deployment("vision", "UPDATING", message)))
        assert str(found).startswith(f"deployment vision: {problem}"), found
        assert not found.permanent
    assert problems_of(serve("DEPLOYING", Deployment("vision", "UPDATING", "Waiting for 1 replicas."))) == ()


def test_advice_speaks_of_the_group_that_the_pod_is_of():
    text = "0/1 nodes are available: 1 Insufficient memory."
    (head,) = problems_of(service(pods=(Pod("serve-app-abcde-head", "head", unschedulable=text),)))
    assert head.advice == "add nodes, or lower head.cpu or head.memory"
    (worker,) = problems_of(with_pod(unschedulable=text))
    assert worker.advice == "add nodes, or lower workers.vision.cpu or workers.vision.memory"


def test_each_problem_is_reported_with_its_cause_and_a_fix():
    crashed = {"reason": "CrashLoopBackOff", "restarts": 4}
    unschedulable = {
        "0/3 nodes: 3 Insufficient nvidia.com/gpu.": "no node has a free GPU",
        "0/3 nodes: 3 Insufficient cpu.": "add nodes, or lower workers.vision.cpu",
        "0/3 nodes: 3 node(s) had untolerated taint {gpu: }.": "check `pools` in the scenario",
        "pod has unbound immediate PersistentVolumeClaims": "check its storage class",
        "something else": "see kubectl describe pod",
    }
    cases = [
        (ServiceStatus(TARGET), "RayService serve-app: not found in namespace there; scripts/deploy up creates it"),
        (service(observed_generation=0, conditions=()), "the KubeRay operator hasn't processed it yet"),
        (
            with_pod(container(reason="ErrImagePull", message="manifest unknown")),
            "container ray of vision: can't pull the image registry/vision:9 (ErrImagePull: manifest unknown); check",
        ),
        (
            replace(with_pod(container(reason="ImagePullBackOff", message="Back-off")), events=(PULL_EVENT,)),
            '(ImagePullBackOff: Failed to pull image "v:9": not found)',
        ),
        (
            with_pod(container(**crashed, last_exit_code=3, last_lines=("no plans", "giving up"))),
            "container ray of vision: keeps crashing with exit code 3; last log lines: no plans | giving up; "
            "see scripts/deploy logs SCENARIO --group vision --container ray --previous",
        ),
        (
            with_pod(container(**crashed, last_reason="OOMKilled", last_exit_code=137)),
            "ran out of memory and was killed (4 restarts); raise workers.vision.memory",
        ),
        (
            with_pod(container("models", init=True, state="terminated", reason="Error", exit_code=1)),
            "init container models of vision: fails with exit code 1",
        ),
        (
            with_pod(container("models", init=True, **crashed, last_exit_code=1)),
            "init container models of vision: fails with exit code 1",
        ),
        (
            with_pod(container(reason="CreateContainerConfigError", message='secret "hub" not found')),
            'container ray of vision: can\'t start: secret "hub" not found',
        ),
        *((with_pod(unschedulable=text), f"pods of vision: unschedulable: {text}") for text in unschedulable),
        *((with_pod(unschedulable=text), advice) for text, advice in unschedulable.items()),
        (
            serve("DEPLOY_FAILED", message="Traceback\nImportError: no module x\n"),
            "application serve_app: DEPLOY_FAILED: ImportError: no module x",
        ),
        (
            serve("RUNNING", Deployment("vision", "UNHEALTHY", "a replica died")),
            "deployment vision: UNHEALTHY: a replica died; Serve restarts its replicas",
        ),
    ]
    for seen, text in cases:
        (found,) = problems_of(seen)
        assert text in str(found)
        assert not found.permanent or "DEPLOY_FAILED" in text


def test_problems_that_need_a_change_are_permanent():
    message = (
        "Traceback (most recent call last):\n  File ...\n"
        "serve_app.errors.ModelLoadError: yolo_nano: no such file model.onnx\nThe deployment failed to start 3 times."
    )
    failed = serve("DEPLOY_FAILED", Deployment("vision", "UNHEALTHY", message), Deployment("router", "HEALTHY"))
    for seen, text in (
        (failed, "deployment vision: UNHEALTHY: yolo_nano: no such file model.onnx; change the configuration"),
        (with_pod(container(reason="InvalidImageName")), "can't pull the image"),
        (condition("ValidationFailed", observed_generation=1), "KubeRay rejects it: because of this; change"),
        (condition("InitializingTimeout"), "KubeRay gave up on it: because of this; fix the problems below"),
        (service(deleting=True), "is being deleted; wait until it is gone"),
    ):
        found = problems_of(seen)[0]
        assert text in str(found)
        assert found.permanent, text
    not_observed = replace(failed, generation=3)
    assert not any(one.permanent for one in problems_of(not_observed)), "the failure is of an older generation"


def test_a_quota_comes_first_with_its_number():
    waiting = pod(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    for source in (
        {"nodes": (Node("g5-x", "g5.2xlarge", problem=QUOTA),)},
        {"events": (Event("NodeClaim/g5-x", "InsufficientCapacityError", QUOTA, warning=True),)},
    ):
        first, second = map(str, problems_of(service(pods=(waiting,), **source)))
        assert first.startswith("AWS quota: the account's vCPU limit of 64 is reached (VcpuLimitExceeded); request")
        assert second.startswith("pods of vision")


def test_a_quota_is_not_reported_once_pods_have_nodes():
    for pods, node, at in (
        ((), Node("g5-x", problem=QUOTA), "2026-01-01T00:00:09Z"),
        ((pod(),), Node("g5-x", problem=QUOTA), "2026-01-01T00:00:09Z"),
        ((pod(unschedulable="no", created="2026-01-01T00:00:05Z"),), Node("x", ready=True), "2026-01-01T00:00:04Z"),
    ):
        event = Event("NodeClaim/g5-x", "InsufficientCapacityError", QUOTA, warning=True, at=at)
        found = problems_of(service(pods=pods, nodes=(node,), events=(event,)))
        assert not [one for one in found if one.about == "AWS quota"], pods


def test_missing_capacity_is_not_a_quota():
    node = Node("g5-x", problem="InsufficientInstanceCapacity: no g5.2xlarge in eu-west-1a")
    found, _ = problems_of(service(pods=(pod(unschedulable="no"),), nodes=(node,)))
    assert str(found).startswith("node g5-x: AWS has no capacity for this instance type now: Insufficient")


def test_the_same_problem_of_many_pods_is_reported_once_and_cut_to_a_readable_length():
    one = pod(unschedulable="x" * 1000)
    (found,) = problems_of(service(pods=(one, replace(one, name="another"))))
    assert len(found.message) < 400
    assert found.message.endswith("…")
