"""Which deployment has a model: by the configuration and by the deployments' indexes, and those as one index."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError

from serve_app.errors import NotFoundError, ServeAppError, UnavailableError
from serve_app.router import catalog
from serve_app.router.catalog import Catalog, merge_indexes

READY = {"name": "m", "version": "1", "state": "READY"}
FAILED = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "no file"}
BARE = {"name": "m"}


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch):
    monkeypatch.setattr(catalog, "REFRESH_INTERVAL_S", 0.001)


@pytest.fixture
def build(deploy):
    """A catalog over deployments, of each the rows of its replicas or the error of one; and their handles."""

    def over(configured=(), **deployments):
        made = {name: deploy(name, *map(replica, replicas, "123")) for name, replicas in deployments.items()}
        upstreams = [upstream for upstream, _ in made.values()]
        return Catalog(upstreams, dict(configured)), {name: handle for name, (_, handle) in made.items()}

    return over


def replica(rows, name="1"):
    return {"index": lambda: rows if isinstance(rows, Exception) else (name, [dict(row) for row in rows])}


def reads_of(handles):
    return sum(len(handle.broadcasts) for handle in handles.values())


async def refusal_of(call):
    with pytest.raises(ServeAppError) as caught:
        await call
    return type(caught.value), caught.value.message


async def test_a_configured_model_has_its_owner_without_a_read_and_another_is_looked_for_once(build):
    models, handles = build({"yolo": "b"}, a=[[]], b=[[READY]])
    assert (await models.owner("yolo")).name == "b"
    reads = reads_of(handles)
    for _ in range(3):
        assert (await models.owner("m")).name == "b"
    assert reads_of(handles) - reads == 2


async def test_a_model_belongs_to_the_deployment_that_has_it_loaded_and_to_the_first_if_none_has(build):
    models, _ = build(a=[[BARE]], b=[[READY]])
    assert (await models.owner("m")).name == "b"
    models, _ = build(a=[[BARE]], b=[[BARE]])
    assert (await models.owner("m")).name == "a"


async def test_a_model_that_appears_later_is_found(build):
    rows = [READY]
    models, _ = build(a=[rows])
    with pytest.raises(NotFoundError):
        await models.owner("late")
    rows.append(READY | {"name": "late"})
    assert (await models.owner("late")).name == "a"


async def test_an_unknown_model_is_not_found_and_some_available_ones_are_named(build):
    many = [READY | {"name": f"m{index:02}"} for index in range(25)]
    for rows, available in (
        ([], "none yet"), ([READY], "m"), (many, ", ".join(f"m{index:02}" for index in range(20)) + " and 5 more"),
    ):  # fmt: skip
        models, handles = build(a=[rows])
        answers = await asyncio.gather(*(models.owner(f"none{index}") for index in range(50)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {NotFoundError}
        expected = f"Request for unknown model: 'none7' is not found; available: {available}"
        assert answers[7].message == expected
        assert reads_of(handles) <= 2, "callers at the same time share a read"


async def test_a_deployment_that_does_not_answer_may_have_the_model(build):
    for replicas in ([], [ActorDiedError(), ActorDiedError()]):
        models, handles = build({"yolo": "a"}, a=[[READY]], b=replicas)
        message = "model 'none' is not found, but b doesn't answer and may have it; try again later"
        assert await refusal_of(models.owner("none")) == (UnavailableError, message)
        assert (await models.owner("m")).name == "a"
        handles["b"].replicas[:] = [replica([READY | {"name": "none"}])]
        assert (await models.owner("none")).name == "b"


async def test_the_index_has_a_model_once_and_can_leave_out_what_is_not_ready(build):
    other = {"name": "n"}
    models, _ = build(a=[[READY], [READY]], b=[[other]])
    assert await models.index() == [READY, other]
    assert await models.index(only_ready=True) == [READY]
    for row in (READY, READY | {"state": "UNAVAILABLE"}, BARE):  # in a repository that two deployments share
        models, _ = build(a=[[row]], b=[[READY]])
        assert await models.index() == [READY]


def test_indexes_of_replicas_become_rows_with_the_worst_state_and_where_it_is():
    two, unloaded, a = READY | {"version": "2"}, READY | {"state": "UNAVAILABLE", "reason": "unloaded"}, {"name": "a"}
    failed = FAILED | {"reason": "ready on 2 of 3 replicas; r2: no file"}
    loading = READY | {"state": "LOADING", "reason": "ready on 1 of 2 replicas"}
    for replicas, expected in (
        ([], []), ([[], []], []), ([[BARE]], [BARE]),
        *(([[agreed], [agreed]], [agreed]) for agreed in (READY, FAILED, BARE)),
        ([[READY], [FAILED], [READY]], [failed]),
        ([[], [READY]], [loading]), ([[BARE], [READY]], [loading]),
        ([[BARE, READY | a, a], [BARE, READY | a]], [READY | a, BARE]),  # loaded nowhere, and loaded everywhere
        ([[two, unloaded], [unloaded, two]], [unloaded, two]),
    ):  # fmt: skip
        named = [(f"r{number}", rows) for number, rows in enumerate(replicas, 1)]
        assert merge_indexes(named) == expected
