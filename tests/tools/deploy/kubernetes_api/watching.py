"""Lists, and watches: changes of what is selected, from a version on, a line of JSON each."""

import asyncio
import base64
import json

from aiohttp import web

from kubernetes_api import failures
from kubernetes_api.selection import field_test, label_test
from kubernetes_api.store import Change


def selection(query):
    by_label, by_field = label_test(query.get("labelSelector", "")), field_test(query.get("fieldSelector", ""))
    return lambda body: by_label(body["metadata"].get("labels")) and by_field(body)


def in_version(kind, body):
    return body if body.get("apiVersion") == kind.api_version else body | {"apiVersion": kind.api_version}


def listed(cluster, target, query):
    kind, selected = target.kind, selection(query)
    bodies = [in_version(kind, body) for _, body in cluster.store.of(kind.resource, target.namespace) if selected(body)]
    metadata = {"resourceVersion": str(cluster.store.version)}
    limit = int(query.get("limit") or 0)
    start = int(base64.urlsafe_b64decode(query["continue"])) if query.get("continue") else 0
    rest = bodies[start:]
    if limit and len(rest) > limit:
        metadata["continue"] = base64.urlsafe_b64encode(str(start + limit).encode()).decode()
        metadata["remainingItemCount"] = len(rest) - limit
        rest = rest[:limit]
    if kind.schema is None:  # items of built-in kinds don't say what they are
        rest = [{name: value for name, value in body.items() if name not in ("apiVersion", "kind")} for body in rest]
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": rest}


async def watch(cluster, target, request):
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    queue = asyncio.Queue()
    store = cluster.store
    store.watchers.add(queue)
    try:
        limit = request.query.get("timeoutSeconds")
        async with asyncio.timeout(float(limit) if limit else None):
            await relay(cluster, target, request.query, queue, response)
    except (TimeoutError, ConnectionResetError):
        pass
    finally:
        store.watchers.discard(queue)
    return response


async def relay(cluster, target, query, queue, response):
    selected, store = selection(query), cluster.store
    wanted = query.get("resourceVersion", "")
    if wanted in ("", "0"):
        for _, body in store.of(target.kind.resource, target.namespace):
            if selected(body):
                await send(response, "ADDED", in_version(target.kind, body))
    else:
        missed = store.since(int(wanted))
        if missed is None:
            await send(response, "ERROR", failures.gone().status())
            return
        for change in missed:
            await tell(target, change, selected, response)
    while isinstance(change := await queue.get(), Change):
        await tell(target, change, selected, response)
    if change is not None:
        await send(response, "ERROR", change.status())


async def tell(target, change, selected, response):
    """What comes to be selected is added, what isn't any more is deleted, for who watches a selection."""
    if change.key.resource != target.kind.resource or target.namespace not in ("", change.key.namespace):
        return
    was = change.before is not None and selected(change.before)
    is_now = change.what != "DELETED" and selected(change.body)
    if was or is_now:
        what = "MODIFIED" if was and is_now else "ADDED" if is_now else "DELETED"
        await send(response, what, in_version(target.kind, change.body))


async def send(response, what, body):
    await response.write(json.dumps({"type": what, "object": body}).encode() + b"\n")
