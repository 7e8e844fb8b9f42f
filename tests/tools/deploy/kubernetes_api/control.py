"""The tests' own endpoint, POST /_control: what goes wrong, who may do what, what was asked; several at once."""

from copy import deepcopy

from aiohttp import web


async def control(request):
    cluster, player = request.app["cluster"], request.app["player"]
    wanted = await request.json()
    answer = {}
    trouble = wanted if "trouble" in wanted else None
    try:
        if trouble:
            cluster.troubles.add(trouble)
        else:
            for name, value in wanted.items():
                answer[name] = await ACTIONS[name](cluster, player, value)
    except (KeyError, ValueError, TypeError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
    return web.json_response(answer)


async def reset(cluster, player, value):
    """`{"reset": {}}`: a new cluster; `{"crds": false}` leaves KubeRay's and all other definitions out."""
    definitions = value.get("crds", True)
    if definitions and await restore(cluster, player, NEW):
        return
    player.pace = player.first_pace
    cluster.reset(definitions)
    if definitions:
        await save(cluster, player, NEW)


async def save(cluster, player, value):
    """Keeps the cluster as it is now under a name."""
    SAVED[value] = copied(cluster, vars(cluster), player.playing())


async def restore(cluster, player, value):
    """Makes the cluster what was saved under the name; false where nothing was."""
    if value in SAVED:
        state, playing = copied(cluster, *SAVED[value])
        vars(cluster).update(state)
        vars(player).update(playing)
    return value in SAVED


def copied(cluster, state, playing):
    """Of what changes: objects in the store never do, and the catalogue only by definitions."""
    shared = [cluster, state["catalogue"], *state["store"].bodies.values()]
    return deepcopy((state, playing), {id(one): one for one in shared})


SAVED = {}
NEW = "new"


async def heal(cluster, player, value):
    cluster.troubles.heal()


async def operator(cluster, player, value):
    """`{"version": "v1.3.0"}`; `{"version": null}` or false: there is none."""
    version = value.get("version") if value else None
    cluster.install_operator(version)
    if version is None:
        cluster.troubles.add({"trouble": "no_operator"})
    else:
        cluster.troubles.heal("no_operator")


async def failing(cluster, player, value):
    """`{"times": 2, "code": 503, "reason": …, "message": …, "path": part of the path}`: the next answers."""
    cluster.failing.append({"times": 1} | value)


async def failures_left(cluster, player, value):
    """How many answers that were asked to fail haven't been given yet."""
    return sum(one["times"] for one in cluster.failing)


async def requests(cluster, player, value):
    return list(cluster.requests)


async def errors(cluster, player, value):
    """What went wrong in this server itself; a test's fixture holds that it is nothing."""
    return list(cluster.errors)


async def token(cluster, player, value):
    """`{"token": "reader", "user": "jane", "rules": [{"verbs": ["get"], "groups": ["ray.io"], …}]}`."""
    cluster.access.add(value["token"], value.get("user", value["token"]), value.get("rules", []))


async def portforward(cluster, player, value):
    """`{"8000": 12345}`: the pods' port 8000 is this machine's 12345."""
    cluster.forwarded |= {int(port): local for port, local in value.items()}


async def logs(cluster, player, value):
    """`{"part of a pod's name[:container][/previous]": ["line", …]}`; a second time for the same adds lines."""
    for part, lines in value.items():
        cluster.logs.setdefault(part, []).extend(lines)


async def pace(cluster, player, value):
    player.pace = value


async def turns(cluster, player, value):
    """Lets so many turns pass."""
    for _ in range(value):
        await player.turned()


async def delete_pod(cluster, player, value):
    """Takes pods away at once whose names hold the text, as a lost node does."""
    for key, _ in cluster.store.of(("", "pods")):
        if value in key.name:
            cluster.deletion.drop(key)


ACTIONS = {
    "reset": reset,
    "save": save,
    "restore": restore,
    "heal": heal,
    "operator": operator,
    "failing": failing,
    "failures_left": failures_left,
    "requests": requests,
    "errors": errors,
    "token": token,
    "portforward": portforward,
    "logs": logs,
    "pace": pace,
    "turns": turns,
    "delete_pod": delete_pod,
}
