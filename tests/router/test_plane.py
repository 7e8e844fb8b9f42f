"""The data plane over fake deployments: requests to where a model is, statistics, and loads on every replica."""

import asyncio
import time

import pytest
from ray.exceptions import ActorDiedError

from serve_app.errors import (
    DeadlineExceededError,
    ForbiddenError,
    InvalidRequestError,
    ModelLoadError,
    NotFoundError,
    ServeAppError,
    UnavailableError,
)
from serve_app.router import catalog
from serve_app.router.catalog import Catalog
from serve_app.router.deployments import Deployments
from serve_app.router.plane import EXTENSIONS, DataPlane
from serve_app.types.tensors import InferAnswer, InferRequest, Sequence


def ready(name, state="READY"):
    return {"name": name, "version": "1", "state": state} if state else {"name": name}


def replica(name, *rows, **methods):
    """A replica that answers with its name, and has these rows in its index."""

    def change(wanted):
        return name, None

    return {
        "index": lambda: (name, list(rows)),
        "infer": lambda asked: InferAnswer(asked.model, name, asked.id),
        "ready": lambda model, version: version in (-1, 1),
        "metadata": lambda model, version: {"name": model, "versions": [str(version)], "from": name},
        "config": lambda model, version: {"name": model, "from": name},
        "statistics": lambda model, version: [
            {"name": row["name"], "version": "1", "inference_count": 2} for row in rows if model in ("", row["name"])
        ],
        "change": change,
    } | methods


def silent(*_):
    raise ActorDiedError()


@pytest.fixture
def build(deploy):
    """A plane over named deployments; their handles come with it."""

    def over(owners=(), controlled=None, **deployments):
        made = {name: deploy(name, *replicas) for name, replicas in deployments.items()}
        upstreams = {name: upstream for name, (upstream, _) in made.items()}
        plane = DataPlane(
            Catalog(upstreams.values(), dict(owners)),
            Deployments(upstreams.values()),
            controlled=upstreams.get(controlled),
        )
        return plane, {name: handle for name, (_, handle) in made.items()}

    return over


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch):
    monkeypatch.setattr(catalog, "REFRESH_INTERVAL_S", 0.001)


async def refusal_of(call):
    with pytest.raises(ServeAppError) as caught:
        await call
    return type(caught.value), caught.value.message


async def test_a_request_follows_its_model_to_another_deployment(build, monkeypatch):
    """At the first request that misses it, and once the view of the indexes is old."""
    rows = {"a1": [ready("m")], "b1": []}

    def at(name):
        def infer(asked):
            if not rows[name]:
                raise NotFoundError(f"Request for unknown model: '{asked.model}' is not found")
            return InferAnswer(asked.model, name, asked.id)

        return replica(name, index=lambda: (name, list(rows[name])), infer=infer, stream=infer)

    plane, _ = build(a=[at("a1")], b=[at("b1")])
    assert (await plane.infer(InferRequest("m"))).version == "a1"
    rows["a1"], rows["b1"] = [], [ready("m")]
    assert [answer.version async for answer in plane.stream(InferRequest("m"))] == ["b1"]
    rows["a1"], rows["b1"] = [ready("m")], []
    assert (await plane.infer(InferRequest("m"))).version == "a1"
    rows["a1"], rows["b1"] = [], [ready("m")]
    assert (await plane.infer(InferRequest("m"))).version == "b1"
    rows["a1"], rows["b1"] = [ready("m")], [ready("m", "UNAVAILABLE")]
    monkeypatch.setattr(catalog, "STALE_S", 0.0)
    await plane.infer(InferRequest("m"))  # by the old view, which is read again meanwhile
    await plane._catalog._background
    assert (await plane.infer(InferRequest("m"))).version == "a1"
    rows["a1"], rows["b1"] = [], []
    await plane._catalog.refresh()
    with pytest.raises(NotFoundError, match="'m' is not found; available: none yet"):
        await plane.infer(InferRequest("m"))


async def test_a_path_is_refused_as_the_name_of_a_model(build):
    plane, handles = build(controlled="a", a=[replica("a1")])
    for name in ("", ".", "..", "/tmp/x", "a/b", "..\\x"):
        message = f"{name!r} is not a model's name: it must be a single path segment"
        for change in (plane.load(name, {}), plane.unload(name, False)):
            assert await refusal_of(change) == (InvalidRequestError, message)
    assert handles["a"].broadcasts == []


async def test_the_signature_of_a_model_is_not_waited_for_beyond_the_deadline(build):
    """A model that sleeps is woken by it."""
    plane, _ = build({"m": "a"}, a=[replica("a1", metadata=lambda *_: asyncio.Event().wait())])
    with pytest.raises(DeadlineExceededError, match="no answer from a before the deadline"):
        await plane.signature("m", -1, time.time() + 0.05)
    plane, _ = build({"m": "a"}, a=[replica("a1")])
    metadata, batched = await plane.signature("m", 3, time.time() + 60)
    assert (metadata["versions"], batched) == (["3"], False)


async def test_only_the_start_of_a_sequence_is_tried_on_another_replica(build):
    for sequence, calls in (
        (Sequence(7, start=True), 2),
        (Sequence(7), 1),
        (Sequence(7, end=True), 1),
        (Sequence(), 2),
    ):
        plane, handles = build({"m": "a"}, a=[replica("a1", infer=silent)])
        with pytest.raises(UnavailableError):
            await plane.infer(InferRequest("m", sequence=sequence))
        assert len(handles["a"].calls) == calls, sequence


async def test_an_unknown_model_is_not_found_and_not_ready(build):
    plane, _ = build({"yolo": "a"}, a=[replica("a1", ready("m"))])
    for ask in (plane.metadata("none", 1), plane.config("none", 1), plane.infer(InferRequest("none"))):
        with pytest.raises(NotFoundError) as caught:
            await ask
        assert caught.value.message == "Request for unknown model: 'none' is not found; available: m, yolo"
    with pytest.raises(NotFoundError):
        await anext(plane.stream(InferRequest("none")))
    assert await plane.model_ready("none", -1) is False
    with pytest.raises(InvalidRequestError, match="requested model 'none' is not available"):
        await plane.statistics("none", -1)


async def test_requests_of_a_sequence_share_a_session(build):
    plane, handles = build({"m": "a"}, a=[replica("a1")])
    for key in (0, "", 7, "call"):
        await plane.infer(InferRequest("m", sequence=Sequence(key)))
    sessions = [options.get("session_id") for _, _, options in handles["a"].calls]
    assert sessions == [None, None, "m/7", "m/call"]


async def test_readiness_is_that_of_a_model_and_of_every_deployment(build):
    plane, handles = build({"m": "a"}, a=[replica("a1", ready("m"))], b=[replica("b1"), replica("b2", index=silent)])
    assert await plane.ready() is True
    assert [await plane.model_ready("m", version) for version in (-1, 1, 2)] == [True, True, False]
    handles["b"].replicas[0]["index"] = silent
    assert await plane.ready() is False
    handles["b"].replicas.clear()
    assert await plane.ready() is False


async def test_metadata_and_configuration_come_from_a_replica(build):
    plane, _ = build({"m": "a"}, a=[replica("a1")])
    assert await plane.metadata("m", 3) == {"name": "m", "versions": ["3"], "from": "a1"}
    assert await plane.config("m", 3) == {"name": "m", "from": "a1"}
    server = plane.server_metadata()
    assert (server["name"], tuple(server["extensions"])) == ("serve_app", EXTENSIONS)


async def test_statistics_are_summed_over_the_replicas_that_answer(build):
    m = ready("m")
    plane, _ = build(
        a=[replica("a1", m), replica("a2", m), replica("a3", m, statistics=silent)], b=[replica("b1", ready("n"))]
    )
    assert await plane.statistics("m", -1) == {"model_stats": [{"name": "m", "version": "1", "inference_count": 4}]}
    rows = (await plane.statistics("", -1))["model_stats"]
    assert [(row["name"], row["inference_count"]) for row in rows] == [("m", 4), ("n", 2)]

    def refuse(model, version):
        raise InvalidRequestError(f"requested model '{model}' is not available")

    plane, _ = build({"m": "a"}, a=[replica("a1", statistics=refuse), replica("a2", statistics=refuse)])
    refused = (InvalidRequestError, "requested model 'm' is not available")
    assert await refusal_of(plane.statistics("m", 9)) == refused


async def test_a_load_and_an_unload_reach_every_replica(build):
    plane, handles = build({"m": "a"}, a=[replica("a1"), replica("a2")])
    await plane.load("m", {"config": "{}"})
    await plane.unload("m", True)
    first, second = [arguments[0] for method, arguments in handles["a"].broadcasts if method == "change"]
    assert (first.model, first.action, dict(first.parameters)) == ("m", "load", {"config": "{}"})
    assert (second.model, second.action, second.dependents) == ("m", "unload", True)
    assert first.id != second.id


async def test_an_unknown_model_is_loaded_by_the_deployment_with_model_control(build):
    rows = []

    def change(wanted):
        rows.append(ready(wanted.model))
        return "b1", None

    taking = replica("b1", change=change, index=lambda: ("b1", list(rows)))
    plane, handles = build(controlled="b", a=[replica("a1")], b=[taking])
    await plane.load("whole", {"config": "{}", "file:1/model.py": b"x"})
    assert [method for method, _ in handles["b"].broadcasts] == ["index", "change", "index"]
    assert (await plane.infer(InferRequest("whole"))).version == "b1"
    plane, handles = build(a=[replica("a1")])
    with pytest.raises(NotFoundError, match="unknown model: 'whole'"):
        await plane.load("whole", {})
    await plane.unload("whole", False)
    assert all(method == "index" for method, _ in handles["a"].broadcasts)


async def test_a_load_that_fails_on_some_replicas_says_where(build):
    def fails(name):
        return replica(name, change=lambda change: (name, ModelLoadError("failed to load 'm', no file")))

    on_two = "failed to load 'm', no file (on 2 of 3 replicas, first a2)"
    busy = "the deployment is busy or not ready; try again later"
    for replicas, refusal in (
        ([fails("a1"), fails("a2")], (ModelLoadError, "failed to load 'm', no file")),
        ([replica("a1"), fails("a2"), fails("a3")], (ModelLoadError, on_two)),
        ([replica("a1"), replica("a2", change=silent)], (UnavailableError, busy)),
    ):
        plane, _ = build({"m": "a"}, a=replicas)
        assert await refusal_of(plane.load("m", {})) == refusal
    failing = replica("a1", change=lambda change: ("a1", ForbiddenError("polling")))
    plane, _ = build(controlled="a", a=[failing])
    assert await refusal_of(plane.load("new", {})) == (ForbiddenError, "polling")
    with pytest.raises(NotFoundError):
        await plane.infer(InferRequest("new"))
