"""The data plane over made-up deployments: who has a model, who hasn't, and loads on all replicas."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError

from serve_app.errors import (
    ForbiddenError,
    InvalidRequestError,
    ModelLoadError,
    NotFoundError,
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


def asked_everywhere(handles):
    return sum(method == "index" for handle in handles.values() for method, _ in handle.broadcasts)


async def test_a_model_of_the_configuration_is_asked_without_looking_for_it(build):
    plane, handles = build({"yolo": "b"}, a=[replica("a1")], b=[replica("b1")])
    assert (await plane.infer(InferRequest("yolo"))).version == "b1"
    assert (handles["a"].calls, len(handles["b"].calls)) == ([], 1)


async def test_a_model_that_nobody_named_is_looked_for_once_and_remembered(build):
    plane, handles = build(a=[replica("a1")], b=[replica("b1", ready("new"))])
    for _ in range(3):
        assert (await plane.infer(InferRequest("new"))).version == "b1"
    assert asked_everywhere(handles) == 2  # one round


async def test_a_model_belongs_to_the_deployment_that_has_it_loaded(build):
    plane, _ = build(a=[replica("a1", ready("m", None))], b=[replica("b1", ready("m"))])
    assert (await plane._owner("m")).name == "b"
    plane, _ = build(a=[replica("a1", ready("m", None))], b=[replica("b1", ready("m", None))])
    assert (await plane._owner("m")).name == "a"


async def test_a_request_is_led_to_where_its_model_has_moved(build, monkeypatch):
    """By the first request that misses it there, and by a view that is read again when it is old."""
    rows = {"a1": [ready("m")], "b1": []}

    def at(name):
        def infer(asked):
            if not rows[name]:
                raise NotFoundError(f"Request for unknown model: '{asked.model}' is not found")
            return InferAnswer(asked.model, name, asked.id)

        def stream(asked):
            return infer(asked)

        return replica(name, index=lambda: (name, list(rows[name])), infer=infer, stream=stream)

    plane, handles = build(a=[at("a1")], b=[at("b1")])
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
    assert asked_everywhere(handles) % 2 == 0


@pytest.mark.parametrize("name", ["", ".", "..", "/tmp/x", "a/b", "..\\x"])
async def test_a_path_is_no_name_of_a_model(build, name):
    plane, handles = build(controlled="a", a=[replica("a1")])
    for change in (plane.load(name, {}), plane.unload(name, False)):
        with pytest.raises(InvalidRequestError, match="it must be a single path segment"):
            await change
    assert handles["a"].broadcasts == []


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


async def test_a_model_that_comes_later_is_found(build):
    rows = [ready("m")]
    plane, _ = build(a=[replica("a1", index=lambda: ("a1", list(rows)))])
    with pytest.raises(NotFoundError):
        await plane._owner("late")
    rows.append(ready("late"))
    assert (await plane._owner("late")).name == "a"


async def test_a_model_that_nobody_has_is_not_found_with_what_there_is(build):
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


async def test_of_many_models_some_are_named(build):
    plane, _ = build(a=[replica("a1", *(ready(f"m{index:02}") for index in range(25)))])
    with pytest.raises(NotFoundError, match=r"available: m00, m01, .*, m19 and 5 more$"):
        await plane._owner("none")
    plane, _ = build(a=[replica("a1")])
    with pytest.raises(NotFoundError, match="available: none yet"):
        await plane._owner("none")


async def test_callers_at_the_same_time_share_the_search(build):
    plane, handles = build(a=[replica("a1")])
    answers = await asyncio.gather(*(plane._owner(f"none{index}") for index in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {NotFoundError}
    assert asked_everywhere(handles) <= 2


async def test_a_deployment_that_is_silent_may_have_the_model(build):
    plane, handles = build({"yolo": "a"}, a=[replica("a1", ready("m"))], b=[])
    with pytest.raises(UnavailableError) as caught:
        await plane._owner("none")
    assert caught.value.message == "model 'none' is not found, and b has no replica that could have it"
    assert (await plane._owner("m")).name == "a"  # what the others have is there all the same
    assert await plane.model_ready("none", -1) is False
    handles["b"].replicas.append(replica("b1", ready("none")))
    assert (await plane._owner("none")).name == "b"


async def test_requests_of_a_sequence_carry_its_name(build):
    plane, handles = build({"m": "a"}, a=[replica("a1")])
    for key in (0, "", 7, "call"):
        await plane.infer(InferRequest("m", sequence=Sequence(key)))
    sessions = [options.get("session_id") for _, _, options in handles["a"].calls]
    assert sessions == [None, None, "m/7", "m/call"]


async def test_readiness_is_the_models_and_of_all_the_deployments(build):
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


async def test_statistics_are_summed_over_replicas_and_leave_out_those_that_are_silent(build):
    m = ready("m")
    plane, _ = build(
        a=[replica("a1", m), replica("a2", m), replica("a3", m, statistics=silent)], b=[replica("b1", ready("n"))]
    )
    assert await plane.statistics("m", -1) == {"model_stats": [{"name": "m", "version": "1", "inference_count": 4}]}
    assert [(row["name"], row["inference_count"]) for row in (await plane.statistics("", -1))["model_stats"]] == [
        ("m", 4), ("n", 2),
    ]  # fmt: skip


async def test_what_every_replica_refuses_about_statistics_is_the_answer(build):
    def refuse(model, version):
        raise InvalidRequestError(f"requested model '{model}' is not available")

    plane, _ = build({"m": "a"}, a=[replica("a1", statistics=refuse), replica("a2", statistics=refuse)])
    with pytest.raises(InvalidRequestError, match="requested model 'm' is not available"):
        await plane.statistics("m", 9)


async def test_the_index_has_every_model_and_can_leave_out_what_is_not_ready(build):
    plane, _ = build(a=[replica("a1", ready("m")), replica("a2", ready("m"))], b=[replica("b1", ready("n", None))])
    assert await plane.index() == [ready("m"), ready("n", None)]
    assert await plane.index(only_ready=True) == [ready("m")]


async def test_a_load_and_an_unload_reach_every_replica(build):
    plane, handles = build({"m": "a"}, a=[replica("a1"), replica("a2")])
    await plane.load("m", {"config": "{}"})
    await plane.unload("m", True)
    first, second = [arguments[0] for method, arguments in handles["a"].broadcasts if method == "change"]
    assert (first.model, first.action, dict(first.parameters)) == ("m", "load", {"config": "{}"})
    assert (second.model, second.action, second.dependents) == ("m", "unload", True)
    assert first.id != second.id


async def test_an_unknown_model_is_loaded_where_models_can_be(build):
    rows = []

    def change(wanted):
        rows.append(ready(wanted.model))
        return "b1", None

    taking = replica("b1", change=change, index=lambda: ("b1", list(rows)))
    plane, handles = build(controlled="b", a=[replica("a1")], b=[taking])
    await plane.load("whole", {"config": "{}", "file:1/model.py": b"x"})
    assert [method for method, _ in handles["b"].broadcasts] == ["index", "change", "index"]
    assert (await plane.infer(InferRequest("whole"))).version == "b1"


async def test_an_unknown_model_is_loaded_nowhere_without_model_control(build):
    plane, handles = build(a=[replica("a1")])
    with pytest.raises(NotFoundError, match="unknown model: 'whole'"):
        await plane.load("whole", {})
    await plane.unload("whole", False)
    assert all(method == "index" for method, _ in handles["a"].broadcasts)


async def test_a_load_that_fails_everywhere_is_its_reason_and_one_that_fails_in_places_says_where(build):
    def fails(name):
        return replica(name, change=lambda change: (name, ModelLoadError("failed to load 'm', no file")))

    plane, _ = build({"m": "a"}, a=[fails("a1"), fails("a2")])
    with pytest.raises(ModelLoadError) as caught:
        await plane.load("m", {})
    assert caught.value.message == "failed to load 'm', no file"
    plane, _ = build({"m": "a"}, a=[replica("a1"), fails("a2"), fails("a3")])
    with pytest.raises(ModelLoadError) as caught:
        await plane.load("m", {})
    assert caught.value.message == "failed to load 'm', no file (on 2 of 3 replicas, first a2)"


async def test_a_load_that_fails_does_not_make_an_owner(build):
    failing = replica("a1", change=lambda change: ("a1", ForbiddenError("polling")))
    plane, _ = build(controlled="a", a=[failing])
    with pytest.raises(ForbiddenError, match="polling"):
        await plane.load("new", {})
    with pytest.raises(NotFoundError):
        await plane._owner("new")


async def test_a_replica_that_dies_during_a_load_is_no_success(build):
    plane, _ = build({"m": "a"}, a=[replica("a1"), replica("a2", change=silent)])
    with pytest.raises(UnavailableError):
        await plane.load("m", {})


async def test_a_deployment_whose_replicas_all_fail_is_silent_too(build):
    plane, _ = build(a=[replica("a1")], b=[replica("b1", index=silent), replica("b2", index=silent)])
    with pytest.raises(UnavailableError, match="b has no replica that could have it"):
        await plane._owner("of-b")


@pytest.mark.parametrize("other", ["READY", "UNAVAILABLE"])
async def test_a_model_in_a_repository_of_two_deployments_is_in_the_index_once(build, other):
    plane, _ = build(a=[replica("a1", ready("m", other))], b=[replica("b1", ready("m"))])
    assert await plane.index() == [ready("m")]


async def test_a_model_that_only_one_of_two_deployments_has_loaded_is_in_the_index_once(build):
    plane, _ = build(a=[replica("a1", ready("m", None))], b=[replica("b1", ready("m"))])
    assert await plane.index() == [ready("m")]
