"""Logs of pods."""

import asyncio

from aiohttp import web

from kubernetes_api import failures


async def log(cluster, target, request):
    """`tailLines`, `follow`, `container`, `previous`, as kubelets answer them."""
    pod = cluster.writing.read(target.kind, target.namespace, target.name)
    container = container_of(pod, request.query.get("container", ""))
    previous = is_set(request, "previous")
    check_begun(pod, container, previous)
    lines = lines_of(cluster, pod, container, previous)
    if request.query.get("tailLines"):
        lines = lines[len(lines) - min(len(lines), int(request.query["tailLines"])) :]
    if not is_set(request, "follow"):
        return web.Response(text="".join(f"{line}\n" for line in lines))
    return await followed(cluster, target, request, pod, container, lines)


async def followed(cluster, target, request, pod, container, lines):
    """New lines as they come, until the pod goes."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    seen = len(lines_of(cluster, pod, container, False))
    key = cluster.writing.key(target.kind, target.namespace, target.name)
    try:
        while True:
            for line in lines:
                await response.write(f"{line}\n".encode())
            if cluster.store.get(key) is None or request.transport is None or request.transport.is_closing():
                return response
            await asyncio.sleep(0.02)
            there = lines_of(cluster, pod, container, False)
            lines, seen = there[seen:], len(there)
    except ConnectionResetError:
        return response


def is_set(request, name):
    return request.query.get(name, "").lower() in ("1", "true")


def container_of(pod, wanted):
    spec = pod["spec"]
    names = [one["name"] for one in (*spec["containers"], *spec.get("initContainers", ()))]
    name = pod["metadata"]["name"]
    if wanted and wanted not in names:
        raise failures.bad_request(f"container {wanted} is not valid for pod {name}")
    if not wanted and len(spec["containers"]) > 1:
        listed = " ".join(one["name"] for one in spec["containers"])
        inits = " ".join(one["name"] for one in spec.get("initContainers", ()))
        more = f" or one of the init containers: [{inits}]" if inits else ""
        message = f"a container name must be specified for pod {name}, choose one of: [{listed}]{more}"
        raise failures.bad_request(message)
    return wanted or names[0]


def check_begun(pod, container, previous):
    status = pod.get("status", {})
    listed = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    found = next((one for one in listed if one["name"] == container), None)
    name = pod["metadata"]["name"]
    if previous:
        if found is None or "terminated" not in found.get("lastState", {}):
            raise failures.bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        return
    waiting = found["state"].get("waiting") if found else {"reason": "ContainerCreating"}
    if waiting and not (found and found.get("lastState", {}).get("terminated")):
        reason = waiting["reason"]
        why = "trying and failing to pull image" if "Image" in reason else f"waiting to start: {reason}"
        raise failures.bad_request(f'container "{container}" in pod "{name}" is {why}')


def lines_of(cluster, pod, container, previous):
    """What a test has given for the pod or container, else a few lines of its own."""
    name = pod["metadata"]["name"]
    suffix = "/previous" if previous else ""
    for part, lines in cluster.logs.items():
        wanted, _, only = part.removesuffix("/previous").partition(":")
        if wanted in name and only in ("", container) and part.endswith("/previous") == bool(suffix):
            return list(lines)
    said = f"{container} of {name}"
    return [f"{said}: an earlier life"] if previous else [f"{said}: started", f"{said}: ready"]
