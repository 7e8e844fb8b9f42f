"""A pod's status, as kubelet and scheduler write it for the state that the pod is in."""

from kubernetes_api.conditions import is_true, with_condition
from kubernetes_api.times import now

EXITED = {"oom_killed": ("OOMKilled", 137), "crash_loop": ("Error", 1), "init_failed": ("Error", 1)}


def status_of(pod, life, trouble, ready):
    old = pod.get("status", {})
    status = {"phase": phase(pod, life), "qosClass": old.get("qosClass", "Burstable")}
    conditions = old.get("conditions", [])
    if life.stage == "new":
        if trouble["trouble"] in ("unschedulable", "quota"):
            message = unschedulable(pod, trouble)
            conditions = with_condition(conditions, "PodScheduled", "False", "Unschedulable", message)
        return status | ({"conditions": conditions} if conditions else {})
    conditions = with_condition(conditions, "PodScheduled", "True")
    conditions = with_readiness(conditions, pod, life, ready)
    life.address = life.address or address_of(pod)
    status |= {"conditions": conditions, "hostIP": "10.0.1.11", "startTime": old.get("startTime") or now()}
    if life.stage != "scheduled":
        status |= {"podIP": life.address, "podIPs": [{"ip": life.address}]}
    if pod["spec"].get("initContainers"):
        status["initContainerStatuses"] = [
            init_status(one, index, pod, life, trouble) for index, one in enumerate(pod["spec"]["initContainers"])
        ]
    status["containerStatuses"] = [
        container_status(one, pod, life, trouble, ready) for one in pod["spec"]["containers"]
    ]
    return status


def is_initialized(pod, life):
    return life.initialized >= len(pod["spec"].get("initContainers", ())) and life.stage != "scheduled"


def with_readiness(conditions, pod, life, ready):
    initialized = is_initialized(pod, life)
    names = [one["name"] for one in pod["spec"].get("initContainers", ())][life.initialized :]
    why = () if initialized else ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(names)}]")
    conditions = with_condition(conditions, "Initialized", "True" if initialized else "False", *why)
    unready = [one["name"] for one in pod["spec"]["containers"]]
    why = () if ready else ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    for kind in ("ContainersReady", "Ready"):
        conditions = with_condition(conditions, kind, "True" if ready else "False", *why)
    return conditions


def phase(pod, life):
    return "Running" if life.stage == "started" else "Pending"


def is_ready(pod):
    return is_true(pod, "Ready") and not pod["metadata"].get("deletionTimestamp")


def is_running(pod):
    """Whether its containers run, ready or not."""
    states = [one["state"] for one in pod.get("status", {}).get("containerStatuses", ())]
    return bool(states) and all("running" in state for state in states)


def address_of(pod):
    number = int(pod["metadata"]["uid"][:6], 16)
    return f"10.0.{number % 250 + 2}.{number // 251 % 250 + 2}"


def described(container, ready, restarts=0):
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
    }


def container_status(container, pod, life, trouble, ready):
    ill = container["name"] == troubled_container(pod, trouble)["name"]
    if life.stage != "started":
        reason = "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"
        waiting = {"reason": reason}
        # an image that can't be pulled is told where it is wanted: a pod with init containers wants theirs first
        if ill and trouble["trouble"] == "image_pull" and life.stage == "scheduled":
            waiting = pull_state(container, life)
        return described(container, False) | {"state": {"waiting": waiting}, "lastState": {}}
    if ill and trouble["trouble"] in ("crash_loop", "oom_killed"):
        return described(container, False, life.restarts) | crashed(container, pod, life, trouble)
    restarts = life.restarts if ill else 0
    return described(container, ready, restarts) | {
        "started": True,
        "state": {"running": {"startedAt": life.times["started"]}},
        "lastState": {},
    }


def init_status(container, index, pod, life, trouble):
    state = {"waiting": {"reason": "PodInitializing"}}
    ready = life.stage != "scheduled" and index < life.initialized
    begun = life.times.get("initializing", now())
    if life.stage != "scheduled" and trouble["trouble"] == "init_failed" and not ready:
        if container["name"] == troubled_init_container(pod, trouble)["name"]:
            return described(container, False, life.restarts) | crashed(container, pod, life, trouble)
    elif ready and container.get("restartPolicy") == "Always":
        state = {"running": {"startedAt": begun}}
    elif ready:
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": begun, "finishedAt": begun}}
    elif life.stage == "initializing" and index == life.initialized:
        state = {"running": {"startedAt": begun}}
    return described(container, ready) | {"state": state, "lastState": {}}


def crashed(container, pod, life, trouble):
    reason, code = EXITED[trouble["trouble"]]
    metadata = pod["metadata"]
    where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
    message = f"back-off 40s restarting failed container={container['name']} pod={where}"
    begun = life.times.get("started") or life.times.get("initializing") or now()
    ended = {"reason": reason, "exitCode": trouble.get("exit_code", code), "startedAt": begun, "finishedAt": begun}
    ended |= {"message": trouble["message"]} if "message" in trouble else {}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    return {"state": state, "lastState": {"terminated": ended}, "started": False}


def pull_state(container, life):
    image = container["image"]
    if life.turns % 10 in (1, 2):
        return {"reason": "ErrImagePull", "message": pull_error(image)}
    message = f'Back-off pulling image "{image}": ErrImagePull: {pull_error(image)}'
    return {"reason": "ImagePullBackOff", "message": message}


def pull_error(image):
    return (
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{image}": failed to resolve reference '
        f'"{image}": {image}: not found'
    )


def unschedulable(pod, trouble):
    asked = {name for one in pod["spec"]["containers"] for name in requests(one)}
    short = trouble.get("resource") or ("nvidia.com/gpu" if "nvidia.com/gpu" in asked else "cpu")
    message = trouble.get("message") if trouble["trouble"] == "unschedulable" else None
    return message or (
        f"0/3 nodes are available: 3 Insufficient {short}. preemption: 0/3 nodes are available: 3 No preemption "
        "victims found for incoming pod."
    )


def requests(container):
    resources = container.get("resources", {})
    return {**resources.get("limits", {}), **resources.get("requests", {})}


def troubled_container(pod, trouble):
    return named(pod["spec"]["containers"], trouble)


def troubled_init_container(pod, trouble):
    return named(pod["spec"]["initContainers"], trouble)


def named(containers, trouble):
    return next((one for one in containers if one["name"] == trouble.get("container")), containers[0])
