"""The server's front: who asks, what about, and the answer as JSON; everything else is done by what it calls."""

import json

import yaml
from aiohttp import web

from kubernetes_api import discovery, failures, pods, portforward, watching
from kubernetes_api.control import control
from kubernetes_api.target import Target, split, target_of
from kubernetes_api.writing import Wish

PATCHES = {
    "application/json-patch+json": "json-patch",
    "application/merge-patch+json": "merge-patch",
    "application/strategic-merge-patch+json": "strategic-merge-patch",
    "application/apply-patch+yaml": "apply",
    "application/apply-patch+cbor": "",
}


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
    described = describe(cluster.catalogue, path)
    if described is not None:
        return web.json_response(described)
    target = target_of(cluster.catalogue, path)
    if target is None:
        return web.Response(status=404, text="404 page not found\n")
    watched = request.query.get("watch", "").lower() in ("1", "true")
    verb = target.verb(request.method, watched)
    if target.kind.kind == "SelfSubjectAccessReview":
        return web.json_response(cluster.access.reviewed(user, await body_of(request)), status=201)
    cluster.access.check(user, verb, target.kind, target.namespace, target.name, target.subresource)
    if verb not in target.kind.verbs:
        raise failures.not_allowed()
    if verb == "watch":
        return await watching.watch(cluster, target, request)
    return await act(cluster, user, target, verb, request)


def describe(catalogue, path):
    """What discovery answers at the path; None where it is about objects."""
    if path == "/api":
        return discovery.core_versions()
    if path == "/apis":
        return discovery.groups(catalogue)
    if path == "/openapi/v3":
        return discovery.openapi_index(catalogue)
    about = split(path.removeprefix("/openapi/v3"))
    if about and not about[2]:
        of = discovery.openapi if path.startswith("/openapi/v3") else discovery.resources
        return of(catalogue, about[0], about[1])
    parts = path.split("/")
    if len(parts) == 3 and parts[1] == "apis" and parts[2] in catalogue.versions():
        return discovery.group(parts[2], catalogue.versions()[parts[2]])
    return None


async def act(cluster, user, target: Target, verb, request):
    special = SPECIAL.get(target.subresource)
    if special:
        return await special(cluster, target, request)
    if verb == "list":
        return web.json_response(watching.listed(cluster, target, request.query))
    if verb == "get":
        return web.json_response(cluster.writing.read(target.kind, target.namespace, target.name))
    wish = wish_of(request, target)
    if verb in ("delete", "deletecollection"):
        return await delete(cluster, target, verb, wish, request)
    write = {"create": create, "update": replace, "patch": patch}[verb]
    body, status = await write(cluster, user, target, wish, request)
    response = web.json_response(body, status=status)
    for warning in wish.warnings:
        response.headers.add("Warning", '299 - "' + warning.replace('"', '\\"') + '"')
    return response


async def create(cluster, user, target, wish, request):
    if target.name:
        raise failures.not_allowed()
    return cluster.writing.create(target.kind, target.namespace, await body_of(request), wish), 201


async def replace(cluster, user, target, wish, request):
    return cluster.writing.replace(target.kind, target.namespace, target.name, await body_of(request), wish), 200


async def patch(cluster, user, target, wish, request):
    how = PATCHES.get(request.content_type)
    if not how:
        raise failures.unsupported_media(request.content_type)
    body = await body_of(request)
    where = target.kind, target.namespace, target.name
    if how != "apply":
        return cluster.writing.patch(*where, body, how, wish), 200
    if "fieldManager" not in request.query:
        message = 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        raise failures.StatusError(422, "Invalid", message)
    fresh = cluster.store.get(cluster.writing.key(*where)) is None
    if fresh:
        cluster.access.check(user, "create", *where)
    return cluster.writing.apply(*where, body, wish), 201 if fresh else 200


async def delete(cluster, target, verb, wish, request):
    options = await body_of(request) if request.can_read_body else {}
    options = dict(options or {}) | {
        name: request.query[name] for name in ("propagationPolicy",) if name in request.query
    }
    if "gracePeriodSeconds" in request.query:
        options["gracePeriodSeconds"] = int(request.query["gracePeriodSeconds"])
    dry_run = wish.dry_run or bool(options.get("dryRun"))
    if verb == "deletecollection":
        found = watching.listed(cluster, target, request.query)
        for body in found["items"]:
            key = cluster.writing.key(target.kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])
            cluster.deletion.delete(target.kind, key, options, dry_run)
        return web.json_response(found)
    key = cluster.writing.key(target.kind, target.namespace, target.name)
    uid = cluster.writing.read(target.kind, target.namespace, target.name)["metadata"]["uid"]
    left = cluster.deletion.delete(target.kind, key, options, dry_run)
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
        validation=query.get("fieldValidation", "Warn"),
        force=query.get("force", "").lower() in ("1", "true"),
        subresource="status" if target.subresource == "status" else "",
    )


async def body_of(request):
    text = await request.text()
    if "protobuf" in request.content_type:
        raise failures.unsupported_media(request.content_type)
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError:
        try:
            return yaml.load(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise failures.bad_request(f"error decoding the body: {error}") from None


SPECIAL = {
    "log": pods.log,
    "proxy": pods.proxy,
    "portforward": portforward.forward,
}
