"""What operators ask, over made-up deployments: tracks, health and warm-up."""

import asyncio

import httpx
import pytest
from ray.exceptions import ActorDiedError
from starlette.applications import Starlette

from serve_app.detection.tracks import tracks_of
from serve_app.errors import UnavailableError
from serve_app.router import deployments
from serve_app.router.catalog import Catalog
from serve_app.router.deployments import Deployments
from serve_app.router.errors import HANDLERS
from serve_app.router.plane import DataPlane, ServedTrack
from serve_app.router.rest.operations import Operations
from serve_app.settings import Settings
from serve_app.types import ModelCard

TRACKS = tracks_of(Settings().detection.models, ["nano"])


def card(model):
    return ModelCard(model, "openvino", "cpu", "f32", 640, "demo", ("cat",))


def silent():
    raise ActorDiedError()


def replica(*tracks, warming=(), **methods):
    return {
        "describe": lambda: {"tracks": {track.target: card(track.model) for track in tracks}},
        "start_warming": lambda: None,
        "warming": lambda: {model: {"state": state} | more for model, state, more in warming},
    } | methods


def served_by(name):
    return [track for track in TRACKS if (track.design.kind == "baseline") == (name == "baseline")]


@pytest.fixture
def serve(deploy):
    """A client of the routes over named deployments, and their handles."""

    def over(**deployments):
        made = {name: deploy(name, *replicas) for name, replicas in deployments.items()}
        tracks = {track.path: ServedTrack(track, made[name][0]) for name in made for track in served_by(name)}
        playground = made["playground"][0] if "playground" in made else None
        others = [upstream for name, (upstream, _) in made.items() if name != "playground"]
        routes = Operations(DataPlane(Catalog([], {}), Deployments(others, playground), tracks)).routes()
        transport = httpx.ASGITransport(
            Starlette(routes=routes, exception_handlers=HANDLERS), raise_app_exceptions=False
        )
        handles = {name: handle for name, (_, handle) in made.items()}
        return httpx.AsyncClient(transport=transport, base_url="http://router"), handles

    return over


async def test_tracks_say_who_answers_them(serve):
    client, _ = serve(vision=[replica(*served_by("vision"))], baseline=[replica(*served_by("baseline"))])
    rows = {row["path"]: row for row in (await client.get("/tracks")).json()["tracks"]}
    assert set(rows) == {track.path for track in TRACKS}
    assert rows["/predict/nano"]["ready"] is True
    assert rows["/predict/nano"]["size"] == "nano"
    model = served_by("vision")[0].model
    assert rows["/predict/nano"]["model"] == {"name": model, "backend": "openvino", "device": "cpu", "precision": "f32"}
    assert rows["/pytorch/predict/nano"]["track"] == "A"


async def test_tracks_of_a_deployment_that_is_not_there_are_not_ready(serve):
    client, _ = serve(vision=[replica(*served_by("vision"))], baseline=[])
    rows = {row["path"]: row for row in (await client.get("/tracks")).json()["tracks"]}
    assert rows["/predict/nano"]["ready"] is True
    assert rows["/pytorch/predict/nano"]["ready"] is False
    assert set(rows["/pytorch/predict/nano"]["model"]) == {"name"}


async def test_health_is_good_when_every_deployment_has_a_replica_that_answers(serve):
    client, _ = serve(vision=[replica(describe=silent), replica()], baseline=[replica()])
    answer = await client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"live": True, "ready": True, "deployments": {"vision": True, "baseline": True}}


@pytest.mark.parametrize(
    "replicas", [[], [replica(describe=silent)], [replica(describe=lambda: UnavailableError("no"))]]
)
async def test_health_names_the_deployment_that_is_not_there(serve, replicas):
    client, _ = serve(vision=[replica()], baseline=replicas)
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {"live": True, "ready": False, "deployments": {"vision": True, "baseline": False}}


async def test_a_deployment_too_busy_to_answer_is_what_it_was_last(serve):
    client, handles = serve(vision=[replica()])
    handles["vision"].problem = TimeoutError()
    assert (await client.get("/health")).status_code == 503  # nothing is known of it yet
    handles["vision"].problem = None
    assert (await client.get("/health")).status_code == 200
    handles["vision"].problem = TimeoutError()
    assert (await client.get("/health")).status_code == 200
    assert handles["vision"].timeout_s == deployments.TIMEOUT_S
    handles["vision"].problem = ActorDiedError()
    assert (await client.get("/health")).status_code == 503
    handles["vision"].problem = TimeoutError()
    assert (await client.get("/health")).status_code == 503  # what it said before it died counts no longer


async def test_deployments_are_asked_at_the_same_time(serve):
    met = asyncio.Barrier(2)

    async def describe():
        async with asyncio.timeout(10):
            await met.wait()
        return {}

    client, _ = serve(vision=[replica(describe=describe)], baseline=[replica(describe=describe)])
    assert (await client.get("/health")).status_code == 200


async def test_a_warmup_begins_on_every_replica_and_tells_how_far_it_is(serve):
    begun = []
    replicas = [
        replica(start_warming=lambda: begun.append("v1"), warming=[("m", "ready", {"ms": 5})]),
        replica(start_warming=lambda: begun.append("v2"), warming=[("m", "warming", {}), ("n", "ready", {})]),
    ]
    client, _ = serve(vision=replicas, baseline=[replica(start_warming=lambda: begun.append("b1"))])
    answer = await client.post("/warmup")
    assert answer.status_code == 202
    assert begun == ["v1", "v2", "b1"]
    assert answer.json() == (await client.get("/warmup_status")).json() == {
        "state": "warming",
        "deployments": {
            "vision": {
                "m": {"state": "warming", "replicas_ready": 1, "replicas": 2},
                "n": {"state": "ready", "replicas_ready": 1, "replicas": 2},
            },
            "baseline": {},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        ([], "ready"), (["ready"], "ready"), (["ready", "warming"], "warming"), (["pending", "warming"], "pending"),
        (["ready", "failed", "pending"], "failed"),
    ],
)  # fmt: skip
async def test_the_worst_state_of_all_is_the_state(serve, states, worst):
    rows = [(f"m{index}", state, {}) for index, state in enumerate(states)]
    for vision in ([replica(warming=rows)], [replica(warming=[row]) for row in rows] or [replica()]):
        client, _ = serve(vision=vision, baseline=[replica()])
        assert (await client.get("/warmup_status")).json()["state"] == worst


async def test_a_warmup_that_cannot_begin_says_so(serve):
    client, _ = serve(vision=[replica(), replica(start_warming=silent)])
    answer = await client.post("/warmup")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the deployment is busy or not ready; try again later"}
    client, _ = serve(vision=[])
    for answer in (await client.post("/warmup"), await client.get("/warmup_status")):
        assert answer.status_code == 503
        assert answer.json() == {"error": "vision has no running replica"}


@pytest.mark.parametrize(("method", "path"), [("GET", "/warmup"), ("POST", "/warmup_status"), ("POST", "/health")])
async def test_a_method_that_a_path_does_not_take_is_refused(serve, method, path):
    client, _ = serve(vision=[replica()])
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})


async def test_health_answers_whatever_a_deployment_raises(serve):
    client, handles = serve(vision=[replica()])
    handles["vision"].problem = RuntimeError("no controller")
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["deployments"] == {"vision": False}


@pytest.mark.parametrize("replicas", [[], [{"describe": lambda: UnavailableError("the page is not there yet")}]])
async def test_a_playground_that_is_not_there_is_told_and_keeps_nothing_from_being_ready(serve, replicas):
    client, handles = serve(vision=[replica(*served_by("vision"))], playground=replicas)
    answer = await client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"live": True, "ready": True, "deployments": {"vision": True, "playground": False}}
    await client.get("/tracks")
    await client.get("/warmup_status")
    assert handles["playground"].broadcasts == [("describe", ())]  # it has no tracks and nothing to warm


async def test_a_playground_that_is_there_makes_nothing_else_ready(serve):
    client, _ = serve(vision=[{"describe": silent}], playground=[{"describe": dict}])
    answer = await client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["deployments"] == {"vision": False, "playground": True}
