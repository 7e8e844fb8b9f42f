"""The server's front: who asks, what about, and the answer as JSON; everything else is done by what it calls."""

import json

from aiohttp import web

from kubernetes_api import discovery, failures, listing, pods, portforward
from kubernetes_api.control import control
from kubernetes_api.target import Target, split, target_of
from kubernetes_api.writing import Wish

PATCHES = {"application/merge-patch+json": "merge", "application/apply-patch+yaml": "apply"}


def application(cluster, player):
    app = web.Application(middlewares=[answer_failures, note_request], client_max_size=16 * 2**20)
    app["cluster"], app["player"] = cluster, player
    app.router.add_post("/_control", control)
    app.router.add_route("*", "/{path:.*}", answer)
    return app


@web.middleware
async def answer_failures(request, handler):
    try:
        return await handler(request)
    except failures.StatusError as failure:
        return web.json_response(failure.status(), status=failure.code)


@web.middleware
async def note_request(request, handler):
    if request.path == "/_control":
        return await handler(request)
    cluster = request.app["cluster"]
    noted = {"method": request.method, "path": request.path, "query": dict(request.query), "user": None}
    cluster.requests.append(noted)
    request["noted"] = noted
    for failing in cluster.failing:
        if failing["times"] > 0 and failing.get("path", "") in request.path:
            failing["times"] -= 1
            message = failing.get("message", "the server is currently unable to handle the request")
            raise failures.StatusError(failing.get("code", 503), failing.get("reason", "ServiceUnavailable"), message)
    return await handler(request)


async def answer(request):
    cluster, path = request.app["cluster"], request.path.rstrip("/")
    if path in discovery.OPEN:
        return web.json_response(discovery.version()) if path == "/version" else web.Response(text="ok")
    user = cluster.access.user(request.headers.get("Authorization", ""))
    request["noted"]["user"] = user.name
    about = split(path)
    if about and not about[2]:
        described = discovery.resources(cluster.catalogue, *about[:2])
        return web.json_response(described or {"message": "not found"}, status=200 if described else 404)
    target = target_of(cluster.catalogue, path)
    if target is None:
        return web.Response(status=404, text="404 page not found\n")
    verb = target.verb(request.method)
    if target.kind.kind == "SelfSubjectAccessReview":
        return web.json_response(cluster.access.reviewed(user, await body_of(request)), status=201)
    cluster.access.check(user, verb, target.kind, target.namespace, target.name, target.subresource)
    if verb not in target.kind.verbs:
        raise failures.not_allowed()
    return await act(cluster, user, target, verb, request)


async def act(cluster, user, target: Target, verb, request):
    special = SPECIAL.get(target.subresource)
    if special:
        return await special(cluster, target, request)
    if verb == "list":
        return web.json_response(listing.listed(cluster, target, request.query))
    if verb == "get":
        return web.json_response(cluster.writing.read(target.kind, target.namespace, target.name))
    wish = wish_of(request, target)
    if verb == "delete":
        return delete(cluster, target, request)
    write = {"create": create, "patch": patch}[verb]
    body, status = await write(cluster, user, target, wish, request)
    return web.json_response(body, status=status)


async def create(cluster, user, target, wish, request):
    if target.name:
        raise failures.not_allowed()
    return cluster.writing.create(target.kind, target.namespace, await body_of(request), wish), 201


async def patch(cluster, user, target, wish, request):
    how = PATCHES.get(request.content_type)
    if not how:
        raise failures.unsupported_media(request.content_type)
    body = await body_of(request)
    where = target.kind, target.namespace, target.name
    if how != "apply":
        return cluster.writing.patch(*where, body, wish), 200
    fresh = cluster.store.get(cluster.writing.key(*where)) is None
    if fresh:
        cluster.access.check(user, "create", *where)
    return cluster.writing.apply(*where, body, wish), 201 if fresh else 200


def delete(cluster, target, request):
    key = cluster.writing.key(target.kind, target.namespace, target.name)
    uid = cluster.writing.read(target.kind, target.namespace, target.name)["metadata"]["uid"]
    grace = request.query.get("gracePeriodSeconds")
    left = cluster.deletion.delete(target.kind, key, None if grace is None else int(grace))
    if left is not None:
        return web.json_response(left)
    details = failures.details_of(target.kind, target.name, uid=uid)
    done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return web.json_response(done)


def wish_of(request, target):
    query = request.query
    agent = request.headers.get("User-Agent", "unknown").split("/")[0]
    return Wish(
        manager=query.get("fieldManager", agent),
        dry_run=query.get("dryRun") == "All",
        force=query.get("force", "").lower() in ("1", "true"),
        subresource="status" if target.subresource == "status" else "",
    )


async def body_of(request):
    text = await request.text()
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise failures.bad_request(f"error decoding the body: {error}") from None


SPECIAL = {
    "log": pods.log,
    "portforward": portforward.forward,
}
