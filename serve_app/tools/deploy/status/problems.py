"""Why a service isn't serving and how to fix it, derived from its status."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.tools.deploy.status.model import Application, Container, Deployment, Pod, ServiceStatus

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
QUOTA = re.compile(r"VcpuLimitExceeded|MaxSpotInstanceCountExceeded")
CAPACITY = re.compile(r"InsufficientInstanceCapacity|InsufficientCapacity|insufficient capacity")
VCPU_LIMIT = re.compile(r"vCPU limit of (\d+)")
SECONDS = len("2026-01-01T00:00:00")
SERVE_ERROR = re.compile(r"serve_app\.errors\.\w+: (.*)")
PYTHON_ERROR = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Exit): .*", re.MULTILINE)
# What Serve writes of replicas that have no place yet, and of those that take long.
NO_ROOM = re.compile(r"(\d+) replicas that have .* each replica: (.*), total resources available: (.*)\. Use")
SLOW = re.compile(r"(\d+) replicas that have taken more than \d+s to initialize")


@dataclass(frozen=True, slots=True)
class Problem:
    """`permanent`: waiting longer can't help, something must be changed first."""

    about: str
    message: str
    advice: str = ""
    permanent: bool = False

    def __str__(self) -> str:
        return f"{self.about}: {self.message}" + (f"; {self.advice}" if self.advice else "")


def problems_of(seen: ServiceStatus) -> tuple[Problem, ...]:
    """Causes before their effects; a problem that many pods have is listed once."""
    found = [*_of_service(seen), *_of_quota(seen), *_of_pods(seen), *_of_serve(seen), *_of_operator(seen)]
    return tuple(dict.fromkeys(found))


def _of_service(seen: ServiceStatus) -> Iterator[Problem]:
    about = f"RayService {seen.target.name}"
    if not seen.exists:
        yield Problem(about, f"not found in namespace {seen.target.namespace}", "scripts/deploy up creates it")
        return
    if seen.deleting:
        yield Problem(about, "is being deleted", "wait until it is gone, then run scripts/deploy up", permanent=True)
    ready = seen.condition("Ready")
    if ready is None or ready.is_true:
        return
    if ready.reason == "ValidationFailed" and not seen.observed:  # otherwise the condition is of an older generation
        yield Problem(about, f"KubeRay rejects it: {ready.message}", "change the scenario", permanent=True)
    elif ready.reason == "InitializingTimeout":
        yield Problem(
            about,
            f"KubeRay gave up on it: {ready.message or 'it took too long to initialize'}",
            "fix the problems below, then run scripts/deploy up, which recreates it "
            "(--set initializing_timeout_s=… allows more time)",
            permanent=True,
        )


def _of_quota(seen: ServiceStatus) -> Iterator[Problem]:
    waiting = [pod.created[:SECONDS] for pod in seen.pods if pod.unschedulable]
    if not waiting:
        return
    messages = [(f"node {one.name}", one.problem) for one in seen.nodes if one.problem and not one.ready]
    messages += [(one.about, one.message) for one in seen.events if one.warning and one.at[:SECONDS] >= min(waiting)]
    for _, message in reversed(messages):
        if QUOTA.search(message):
            limit = VCPU_LIMIT.search(message)
            yield Problem(
                "AWS quota",
                f"the account's vCPU limit{f' of {limit[1]}' if limit else ''} is reached "
                f"({QUOTA.findall(message)[0]})",
                "request an increase (Service Quotas, EC2, “Running On-Demand G and VT instances”, counted in vCPUs), "
                "stop instances you don't need, or lower workers.<role>.max",
            )
            return
    for about, message in reversed(messages):
        if CAPACITY.search(message):
            yield Problem(
                about,
                f"AWS has no capacity for this instance type now: {_short(message)}",
                "Karpenter retries; allow more instance types or zones in the NodePool",
            )
            return


def _of_pods(seen: ServiceStatus) -> Iterator[Problem]:
    for pod in seen.pods:
        if pod.deleting:
            continue
        if pod.unschedulable:
            yield _unschedulable(pod)
        for container in pod.containers:
            yield from _of_image(seen, pod, container)
            yield from _of_container(pod, container)
        if pod.phase == "Failed" and not pod.containers:
            yield Problem(f"pod {pod.name}", "failed", f"kubectl describe pod -n {seen.target.namespace} {pod.name}")


def _unschedulable(pod: Pod) -> Problem:
    text = pod.unschedulable
    if "Insufficient nvidia.com/gpu" in text:
        advice = (
            "no node has a free GPU: check that a NodePool may add one (kubectl get nodepools,nodeclaims) "
            "and that the NVIDIA device plugin is running"
        )
    elif "Insufficient" in text:
        place = place_of(pod)
        advice = f"add nodes, or lower {place}.cpu or {place}.memory"
    elif "untolerated taint" in text or "affinity" in text or "selector" in text:
        advice = "no node matches the group's labels and taints: check `pools` in the scenario"
    elif "PersistentVolumeClaim" in text or "persistentvolumeclaim" in text:
        advice = "the volume isn't bound: check its storage class (kubectl get storageclass,pvc)"
    else:
        advice = "see kubectl describe pod"
    return Problem(f"pods of {pod.group}", f"unschedulable: {_short(text)}", advice)


def place_of(pod: Pod) -> str:
    """Its group's key in a scenario."""
    return "head" if pod.group == "head" else f"workers.{pod.group}"


def _of_image(seen: ServiceStatus, pod: Pod, container: Container) -> Iterator[Problem]:
    if container.reason not in IMAGE_REASONS:
        return
    about = f"Pod/{pod.name}"  # the event has the cause, the container only a back-off
    causes = [one.message for one in seen.events if one.about == about and "Failed to pull image" in one.message]
    detail = f": {_short((causes or [container.message])[-1])}" if causes or container.message else ""
    yield Problem(
        _about(pod, container),
        f"can't pull the image {container.image} ({container.reason}{detail})",
        "check that it is pushed (kuberay/images), that images.registry and images.tag are right, "
        "and that the nodes may pull it",
        permanent=container.reason in ("InvalidImageName", "ErrImageNeverPull"),
    )


def _about(pod: Pod, container: Container) -> str:
    return f"{'init container' if container.init else 'container'} {container.name} of {pod.group}"


def _of_container(pod: Pod, container: Container) -> Iterator[Problem]:
    about, reason = _about(pod, container), container.reason
    if reason in CONFIG_REASONS:
        cause = _short(container.message) or reason
        yield Problem(about, f"can't start: {cause}", "check that every Secret and volume exists")
    elif "OOMKilled" in (reason, container.last_reason):
        restarts = f" ({container.restarts} restarts)" if container.restarts else ""
        yield Problem(about, f"ran out of memory and was killed{restarts}", f"raise {place_of(pod)}.memory")
    elif container.init and _failed(container):
        yield Problem(about, f"fails{_code(container)}{_log(container)}", _see_log(pod, container))
    elif reason == "CrashLoopBackOff" or (container.restarts and container.last_exit_code and not container.ready):
        yield Problem(about, f"keeps crashing{_code(container)}{_log(container)}", _see_log(pod, container))


def _failed(container: Container) -> bool:
    ended_badly = container.state == "terminated" and container.exit_code not in (0, None)
    return ended_badly or container.reason == "CrashLoopBackOff"


def _code(container: Container) -> str:
    code = container.exit_code if container.state == "terminated" else container.last_exit_code
    return "" if code is None else f" with exit code {code}"


def _log(container: Container) -> str:
    return f"; last log lines: {' | '.join(container.last_lines)}" if container.last_lines else ""


def _see_log(pod: Pod, container: Container) -> str:
    return f"see scripts/deploy logs SCENARIO --group {pod.group} --container {container.name} --previous"


def _of_serve(seen: ServiceStatus) -> Iterator[Problem]:
    for cluster in seen.clusters:
        if cluster.role == "active" and seen.cluster("pending"):
            continue  # it is being replaced
        for application in cluster.applications:
            yield from _of_application(seen, application)


def _of_application(seen: ServiceStatus, application: Application) -> Iterator[Problem]:
    for one in application.deployments:
        if one.status == "UPDATING" and (why := _why_it_waits(one.message)):
            yield Problem(f"deployment {one.name}", *why)
    failed = application.status == "DEPLOY_FAILED"
    failing = [one for one in application.deployments if one.status in ("DEPLOY_FAILED", "UNHEALTHY")]
    for one in failing:
        permanent = seen.observed and (failed or one.status == "DEPLOY_FAILED")
        yield Problem(
            f"deployment {one.name}", f"{one.status}: {_serve_message(one)}", _serve_advice(permanent), permanent
        )
    if not failing and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        permanent = failed and seen.observed
        message = _serve_message(application)
        yield Problem(
            f"application {application.name}", f"{application.status}: {message}", _serve_advice(permanent), permanent
        )


def _why_it_waits(message: str) -> tuple[str, str] | None:
    """What Serve says of replicas that aren't there yet, and what helps."""
    if found := NO_ROOM.search(message):
        advice = "it starts once there is room: add pods or processors, or lower what the deployments ask for"
        return f"{_count(found[1])} for room for {found[2]}, and free are {found[3]}", advice
    errors = SERVE_ERROR.findall(message) or [one.strip() for one in PYTHON_ERROR.findall(message)]
    if errors and "failed to start" in message:
        return f"a replica failed to start, and Serve tries again: {_short(errors[-1])}", "see scripts/deploy logs"
    if found := SLOW.search(message):
        return f"{_count(found[1])} long for its model or engine to start", "see scripts/deploy logs --deployment"
    return None


def _count(replicas: str) -> str:
    return "1 replica waits" if replicas == "1" else f"{replicas} replicas wait"


def _serve_advice(permanent: bool) -> str:
    change = "change the configuration and run scripts/deploy upgrade, or run scripts/deploy rollback"
    return change if permanent else "Serve restarts its replicas; see scripts/deploy logs"


def _serve_message(one: Application | Deployment) -> str:
    """The service's own error if there is one, else the last line of Serve's message."""
    if known := SERVE_ERROR.findall(one.message):
        return str(known[-1])
    lines = [line.strip() for line in one.message.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else "Serve gives no reason"


def _of_operator(seen: ServiceStatus) -> Iterator[Problem]:
    if seen.exists and not seen.deleting and not seen.observed and not seen.clusters:
        yield Problem(
            f"RayService {seen.target.name}",
            "the KubeRay operator hasn't processed it yet",
            "check that it runs and watches this namespace (kubectl logs -n kuberay-system deploy/kuberay-operator)",
        )


def _short(text: str, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
