"""Tracks, health and warm-up, over fake deployments."""

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


async def test_tracks_are_described_and_those_of_an_absent_deployment_are_not_ready(serve):
    client, _ = serve(vision=[replica(*served_by("vision"))], baseline=[])
    rows = {row["path"]: row for row in (await client.get("/tracks")).json()["tracks"]}
    assert set(rows) == {track.path for track in TRACKS}
    nano, baseline = rows["/predict/nano"], rows["/pytorch/predict/nano"]
    model = served_by("vision")[0].model
    assert (nano["ready"], nano["size"]) == (True, "nano")
    assert nano["model"] == {"name": model, "backend": "openvino", "device": "cpu", "precision": "f32"}
    assert (baseline["ready"], baseline["track"], set(baseline["model"])) == (False, "A", {"name"})


async def health(client, status):
    answer = await client.get("/health")
    assert answer.status_code == status
    assert (answer.json()["live"], answer.json()["ready"]) == (True, status == 200)
    return answer.json()["deployments"]


async def test_health_is_good_if_every_deployment_has_a_replica_that_answers(serve):
    client, handles = serve(vision=[replica(describe=silent), replica()], baseline=[replica()])
    assert await health(client, 200) == {"vision": True, "baseline": True}
    for replicas in ([], [replica(describe=silent)], [replica(describe=lambda: UnavailableError("no"))]):
        handles["baseline"].replicas = replicas
        assert await health(client, 503) == {"vision": True, "baseline": False}
    handles["vision"].problem = RuntimeError("no controller")
    assert await health(client, 503) == {"vision": False, "baseline": False}


async def test_a_deployment_too_busy_to_answer_is_as_healthy_as_it_was(serve):
    client, handles = serve(vision=[replica()])
    for problem, status in (
        (TimeoutError(), 503),  # nothing is known of it yet
        (None, 200), (TimeoutError(), 200), (ActorDiedError(), 503), (TimeoutError(), 503),
    ):  # fmt: skip
        handles["vision"].problem = problem
        await health(client, status)
    assert handles["vision"].timeout_s == deployments.TIMEOUT_S


async def test_deployments_are_asked_at_the_same_time(serve):
    met = asyncio.Barrier(2)

    async def describe():
        async with asyncio.timeout(10):
            await met.wait()
        return {}

    client, _ = serve(vision=[replica(describe=describe)], baseline=[replica(describe=describe)])
    assert (await client.get("/health")).status_code == 200


async def test_a_warmup_begins_on_every_replica_and_its_status_counts_them(serve):
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


async def test_the_state_of_a_warmup_is_the_worst_of_all(serve):
    for states, worst in (
        ([], "ready"), (["ready"], "ready"), (["ready", "warming"], "warming"), (["pending", "warming"], "pending"),
        (["ready", "failed", "pending"], "failed"),
    ):  # fmt: skip
        rows = [(f"m{index}", state, {}) for index, state in enumerate(states)]
        for vision in ([replica(warming=rows)], [replica(warming=[row]) for row in rows] or [replica()]):
            client, _ = serve(vision=vision, baseline=[replica()])
            assert (await client.get("/warmup_status")).json()["state"] == worst, states


async def test_a_warmup_that_cannot_begin_and_a_wrong_method_are_refused(serve):
    client, handles = serve(vision=[replica(), replica(start_warming=silent)])
    cases = [("POST", "/warmup", 503, "the deployment is busy or not ready; try again later")]
    cases += [(method, path, 405, "Method Not Allowed")
              for method, path in (("GET", "/warmup"), ("POST", "/warmup_status"), ("POST", "/health"))]  # fmt: skip
    for method, path, status, message in cases:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()) == (status, {"error": message}), (method, path)
    handles["vision"].replicas.clear()
    for answer in (await client.post("/warmup"), await client.get("/warmup_status")):
        assert (answer.status_code, answer.json()) == (503, {"error": "vision has no running replica"})


async def test_the_playground_counts_neither_for_nor_against_readiness(serve):
    for replicas in ([], [{"describe": lambda: UnavailableError("the page is not there yet")}]):
        client, handles = serve(vision=[replica(*served_by("vision"))], playground=replicas)
        assert await health(client, 200) == {"vision": True, "playground": False}
        await client.get("/tracks")
        await client.get("/warmup_status")
        assert handles["playground"].broadcasts == [("describe", ())]  # it has no tracks and nothing to warm
    client, _ = serve(vision=[{"describe": silent}], playground=[{"describe": dict}])
    assert await health(client, 503) == {"vision": False, "playground": True}
