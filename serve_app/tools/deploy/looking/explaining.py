"""Why a deployment doesn't serve, and what a person can do about it: an observation to reasons, without a cluster."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.tools.deploy.looking.observation import Application, Container, Deployment, Observation, Pod

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
QUOTA = re.compile(r"VcpuLimitExceeded|MaxSpotInstanceCountExceeded")
CAPACITY = re.compile(r"InsufficientInstanceCapacity|InsufficientCapacity|insufficient capacity")
VCPU_LIMIT = re.compile(r"vCPU limit of (\d+)")
SECONDS = len("2026-01-01T00:00:00")
SERVE_ERROR = re.compile(r"serve_app\.errors\.\w+: (.*)")


@dataclass(frozen=True, slots=True)
class Reason:
    """`hopeless` where waiting longer can't help: somebody must change something first."""

    about: str
    problem: str
    advice: str = ""
    hopeless: bool = False

    def __str__(self) -> str:
        return f"{self.about}: {self.problem}" + (f"; {self.advice}" if self.advice else "")


def reasons_of(seen: Observation) -> tuple[Reason, ...]:
    """Causes before their effects; the same reason of many pods is told once."""
    found = [*_of_service(seen), *_of_quota(seen), *_of_pods(seen), *_of_serve(seen), *_of_silence(seen)]
    return tuple(dict.fromkeys(found))


def missing_of(seen: Observation) -> tuple[str, ...]:
    """What would have to come for the deployment to serve."""
    if not seen.exists:
        return (f"RayService {seen.target}",)
    lacking = []
    for (_, group), pods in seen.groups.items():
        ready = sum(pod.ready for pod in pods)
        if ready < len(pods):
            lacking.append(f"pods of {group}: {ready} of {len(pods)} ready")
    for cluster in seen.clusters:
        for application in cluster.applications:
            lacking += [
                f"deployment {one.name} of Serve: {one.status}"
                for one in application.deployments
                if one.status != "HEALTHY"
            ]
            if application.status != "RUNNING" and not application.deployments:
                lacking.append(f"application {application.name} of Serve: {application.status}")
    if not any(cluster.applications for cluster in seen.clusters):
        lacking.append("the applications of Serve")
    if not seen.endpoints:
        lacking.append("an endpoint that serves")
    if seen.cluster("pending") and seen.cluster("active"):
        lacking.append("the switch to the new cluster")
    return tuple(dict.fromkeys(lacking))


def _of_service(seen: Observation) -> Iterator[Reason]:
    about = f"RayService {seen.target.name}"
    if not seen.exists:
        yield Reason(about, f"isn't in the namespace {seen.target.namespace}", "scripts/deploy up brings it there")
        return
    if seen.ending:
        yield Reason(about, "is being deleted", "wait until it is gone, then bring it up again", hopeless=True)
    ready = seen.condition("Ready")
    if ready is None or ready.holds:
        return
    if ready.reason == "ValidationFailed" and not seen.current:  # after the next look the condition is only left over
        yield Reason(about, f"KubeRay refuses it: {ready.message}", "change the scenario", hopeless=True)
    elif ready.reason == "InitializingTimeout":
        yield Reason(
            about,
            f"KubeRay has given it up: {ready.message or 'it took too long to initialize'}",
            "mend what is named below, then run scripts/deploy up again, which makes it anew "
            "(--set initializing_timeout_s=… gives it longer)",
            hopeless=True,
        )


def _of_quota(seen: Observation) -> Iterator[Reason]:
    waiting = [pod.made[:SECONDS] for pod in seen.pods if pod.unschedulable]
    if not waiting:
        return
    told = [(f"node {one.name}", one.problem) for one in seen.machines if one.problem and not one.ready]
    told += [(one.about, one.message) for one in seen.happenings if one.warning and one.at[:SECONDS] >= min(waiting)]
    for _, message in reversed(told):
        if QUOTA.search(message):
            limit = VCPU_LIMIT.search(message)
            yield Reason(
                "AWS quota",
                f"no more machines: the account's vCPU limit{f' of {limit[1]}' if limit else ''} is reached "
                f"({QUOTA.findall(message)[0]})",
                "ask AWS for more (Service Quotas, EC2, “Running On-Demand G and VT instances” counts vCPUs), "
                "end machines that nobody needs, or lower the workers' max",
            )
            return
    for about, message in reversed(told):
        if CAPACITY.search(message):
            yield Reason(
                about,
                f"AWS has no such machine free now: {_short(message)}",
                "it is tried again; more instance types or zones in the NodePool help",
            )
            return


def _of_pods(seen: Observation) -> Iterator[Reason]:
    for pod in seen.pods:
        if pod.ending:
            continue
        if pod.unschedulable:
            yield _unschedulable(pod)
        for container in pod.containers:
            yield from _of_image(seen, pod, container)
            yield from _of_container(pod, container)
        if pod.phase == "Failed" and not pod.containers:
            yield Reason(f"pod {pod.name}", "has failed", f"kubectl describe pod -n {seen.target.namespace} {pod.name}")


def _unschedulable(pod: Pod) -> Reason:
    text = pod.unschedulable
    if "Insufficient nvidia.com/gpu" in text:
        advice = (
            "no node has a free GPU: is there a NodePool that may add one (kubectl get nodepools,nodeclaims), "
            "and is the NVIDIA device plugin running?"
        )
    elif "Insufficient" in text:
        advice = "add nodes, or ask for less: --set workers.<role>.cpu=…, .memory=…"
    elif "untolerated taint" in text or "affinity" in text or "selector" in text:
        advice = "no node carries the label or bears the taint that the group asks for: see pools in the scenario"
    elif "PersistentVolumeClaim" in text or "persistentvolumeclaim" in text:
        advice = "the volume isn't bound: is its storage class there (kubectl get storageclass,pvc)?"
    else:
        advice = "kubectl describe pod says more"
    return Reason(f"pods of {pod.group}", f"no node takes them: {_short(text)}", advice)


def _of_image(seen: Observation, pod: Pod, container: Container) -> Iterator[Reason]:
    if container.reason not in IMAGE_REASONS:
        return
    about = f"Pod/{pod.name}"  # the event says why, where the container only says that it waits
    told = [one.message for one in seen.happenings if one.about == about and "Failed to pull image" in one.message]
    detail = f": {_short((told or [container.message])[-1])}" if told or container.message else ""
    yield Reason(
        _about(pod, container),
        f"can't pull the image {container.image} ({container.reason}{detail})",
        "is it pushed (kuberay/images), is the name right (--set images.registry=…, images.tag=…), "
        "and may the nodes pull it?",
        hopeless=container.reason in ("InvalidImageName", "ErrImageNeverPull"),
    )


def _about(pod: Pod, container: Container) -> str:
    return f"{'init container' if container.init else 'container'} {container.name} of {pod.group}"


def _of_container(pod: Pod, container: Container) -> Iterator[Reason]:
    about, reason = _about(pod, container), container.reason
    if reason in CONFIG_REASONS:
        yield Reason(about, f"can't start: {_short(container.message) or reason}", "is every Secret and volume there?")
    elif "OOMKilled" in (reason, container.last_reason):
        runs = f", {container.restarts} times restarted" if container.restarts else ""
        yield Reason(
            about, f"ran out of memory and was killed{runs}", "give the group more: --set workers.<role>.memory=…"
        )
    elif container.init and _failed(container):
        yield Reason(about, f"fails{_code(container)}{_log(container)}", _see_log(pod, container))
    elif reason == "CrashLoopBackOff" or (container.restarts and container.last_exit_code and not container.ready):
        yield Reason(about, f"crashes again and again{_code(container)}{_log(container)}", _see_log(pod, container))


def _failed(container: Container) -> bool:
    ended_badly = container.state == "terminated" and container.exit_code not in (0, None)
    return ended_badly or container.reason == "CrashLoopBackOff"


def _code(container: Container) -> str:
    code = container.exit_code if container.state == "terminated" else container.last_exit_code
    return "" if code is None else f" with status {code}"


def _log(container: Container) -> str:
    return f"; its last words: {' | '.join(container.last_lines)}" if container.last_lines else ""


def _see_log(pod: Pod, container: Container) -> str:
    return f"scripts/deploy logs SCENARIO --group {pod.group} --container {container.name} --previous shows them all"


def _of_serve(seen: Observation) -> Iterator[Reason]:
    for cluster in seen.clusters:
        if cluster.role == "active" and seen.cluster("pending"):
            continue  # it goes; what comes is of interest
        for application in cluster.applications:
            yield from _of_application(seen, application)


def _of_application(seen: Observation, application: Application) -> Iterator[Reason]:
    failed = application.status == "DEPLOY_FAILED"
    ill = [one for one in application.deployments if one.status in ("DEPLOY_FAILED", "UNHEALTHY")]
    for one in ill:
        hopeless = seen.current and (failed or one.status == "DEPLOY_FAILED")
        yield Reason(
            f"deployment {one.name}", f"{one.status}: {_serve_message(one)}", _serve_advice(hopeless), hopeless
        )
    if not ill and application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
        hopeless = failed and seen.current
        message = _serve_message(application)
        yield Reason(
            f"application {application.name}", f"{application.status}: {message}", _serve_advice(hopeless), hopeless
        )


def _serve_advice(hopeless: bool) -> str:
    change = "change the configuration and run scripts/deploy upgrade, or scripts/deploy rollback"
    return change if hopeless else "Serve starts its replicas again; scripts/deploy logs says more"


def _serve_message(ill: Application | Deployment) -> str:
    """The error that our own code raised, else the last line of what Serve says."""
    if known := SERVE_ERROR.findall(ill.message):
        return str(known[-1])
    lines = [line.strip() for line in ill.message.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else "Serve gives no reason"


def _of_silence(seen: Observation) -> Iterator[Reason]:
    """Nobody reacts: the operator is gone, or looks at other namespaces."""
    if seen.exists and not seen.ending and not seen.current and not seen.clusters:
        yield Reason(
            f"RayService {seen.target.name}",
            "the KubeRay operator hasn't looked at it yet",
            "does it run, and does it watch this namespace (kubectl logs -n kuberay-system deploy/kuberay-operator)?",
        )


def _short(text: str, limit: int = 300) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
