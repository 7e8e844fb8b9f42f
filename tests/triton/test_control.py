"""Loads and unloads on a real engine, and their record for engines that start later."""

import json
import logging

import numpy as np
import pytest

from serve_app.errors import ForbiddenError, ModelLoadError, NotFoundError
from serve_app.triton import control
from serve_app.triton.control import REFUSALS, ModelControl
from serve_app.types.changes import ModelChange

BROKEN = "raise ValueError('no engine')"
NAMES = ("apart", "again", "fixed", "kept", "later", "rivals", "shared", "whole_folder")


class MemoryStore:
    """What ClusterStore keeps in Ray, in this process."""

    def __init__(self):
        self._changes = {}
        self._version = b""

    def version(self):
        return self._version

    def changes(self):
        return sorted(self._changes.values(), key=lambda change: change.at)

    def record(self, change):
        self._changes[change.model] = change
        self._version = change.id.encode()


class Calls:
    """Records the loads and unloads of an engine, which still happen."""

    def __init__(self, engine, monkeypatch):
        self.made = []
        for action in ("load", "unload"):
            monkeypatch.setattr(engine, action, self._noted(action, getattr(engine, action)))

    def _noted(self, action, method):
        def call(name, *arguments):
            self.made.append((action, name))
            return method(name, *arguments)

        return call


@pytest.fixture(scope="module")
def repository(tmp_path_factory, repository_in):
    repository = repository_in(tmp_path_factory.mktemp("control"))
    for name in ("first", *NAMES):
        repository.add(name)
    return repository.add("one").add("two").add_ensemble("both", "one", "two").add("bad", model_py=BROKEN)


@pytest.fixture(scope="module")
def engine(repository, run_models):
    return run_models(repository.path, "first")


@pytest.fixture
def calls(engine, monkeypatch):
    return Calls(engine, monkeypatch)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def explicit(engine, store):
    return ModelControl(engine, "explicit", store, takes_files=True)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, logger="ray.serve")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "ray.serve"]


def load(name, **parameters):
    return ModelChange(name, "load", parameters)


def unload(name, dependents=False):
    return ModelChange(name, "unload", dependents=dependents)


def times(repository, number):
    """A model that multiplies with another number."""
    return (repository.path / "first" / "1" / "model.py").read_text().replace("x * 2", f"x * {number}")


def write(repository, name, model_py):
    (repository.path / name / "1" / "model.py").write_text(model_py)


async def answer(engine, name):
    return (await engine.infer(name, {"x": np.array([[1]], np.float32)})).outputs["y"].item()


def rows(engine, name):
    return [row for row in engine.index() if row["name"] == name]


def whole(model_py, name):
    tensor = {"data_type": "TYPE_FP32", "dims": [1]}
    config = {"name": name, "backend": "python", "max_batch_size": 4}
    config |= {"input": [tensor | {"name": "x"}], "output": [tensor | {"name": "y"}]}
    return {"config": json.dumps(config), "file:1/model.py": model_py.encode()}


async def test_a_model_is_loaded_and_unloaded_and_the_latest_change_is_recorded(engine, explicit, store):
    coming, going = load("kept"), unload("kept")
    await explicit.apply(coming)
    assert await answer(engine, "kept") == 2
    assert (store.changes(), store.version()) == ([coming], coming.id.encode())
    await explicit.apply(going)
    with pytest.raises(NotFoundError, match="unknown model: 'kept'"):
        await answer(engine, "kept")
    assert (store.changes(), store.version()) == ([going], going.id.encode())


async def test_files_do_not_come_with_a_load_unless_the_deployment_allows_it(engine, store, calls):
    change = ModelChange("mine", "load", whole("", "mine"))
    with pytest.raises(ForbiddenError, match="failed to load 'mine', files may not come with a load: set load_files"):
        await ModelControl(engine, "explicit", store).apply(change)
    assert (store.changes(), calls.made) == ([], [])


async def test_without_explicit_control_changes_are_forbidden_and_none_are_taken_over(engine, store, calls):
    for mode in ("none", "poll"):
        for change in (load("later"), unload("first"), load("nobody")):
            with pytest.raises(ForbiddenError) as caught:
                await ModelControl(engine, mode, store).apply(change)
            assert caught.value.message == REFUSALS[mode]
            assert caught.value.message.startswith("explicit model load / unload is not allowed")
    assert (store.changes(), store.version()) == ([], b"")
    store.record(load("later"))
    for mode in ("none", "poll"):
        await ModelControl(engine, mode, store).catch_up()
    assert calls.made == []


async def test_an_engine_that_starts_later_takes_over_what_was_changed(repository, engine, explicit, store, run_models):
    await explicit.apply(load("later"))
    await explicit.apply(load("brought", **whole(times(repository, 7), "brought")))
    await explicit.apply(unload("first"))
    other = run_models(repository.path, "first")
    assert await answer(other, "first") == 2
    follower = ModelControl(other, "explicit", store, takes_files=True)
    await follower.catch_up()
    assert (await answer(other, "later"), await answer(other, "brought")) == (2, 7)
    with pytest.raises(NotFoundError, match="unknown model: 'first'"):
        await answer(other, "first")
    await explicit.apply(unload("later"))
    await explicit.apply(load("first"))
    await follower.catch_up()
    with pytest.raises(NotFoundError, match="unknown model: 'later'"):
        await answer(other, "later")
    assert await answer(other, "first") == 2


async def test_what_was_applied_here_is_not_applied_again(explicit, calls):
    await explicit.apply(load("again"))
    await explicit.catch_up()
    await explicit.catch_up()
    assert calls.made == [("load", "again")]


async def test_what_was_taken_over_is_not_taken_over_again(explicit, store, calls):
    store.record(load("again"))
    store.record(load("apart"))
    await explicit.catch_up()
    store.record(unload("apart"))
    await explicit.catch_up()
    await explicit.catch_up()
    assert calls.made == [("load", "again"), ("load", "apart"), ("unload", "apart")]


async def test_a_newer_change_of_another_replica_wins(engine, explicit, store, calls):
    other = ModelControl(engine, "explicit", store)
    await explicit.apply(load("rivals"))
    await other.apply(unload("rivals"))
    await explicit.catch_up()
    assert calls.made == [("load", "rivals"), ("unload", "rivals"), ("unload", "rivals")]
    with pytest.raises(NotFoundError, match="unknown model: 'rivals'"):
        await answer(engine, "rivals")


async def test_a_change_that_fails_is_logged_and_does_not_stop_the_others(engine, explicit, store, warnings):
    for change in (load("bad"), load("nobody"), load("shared")):
        store.record(change)
    await explicit.catch_up()
    assert warnings() == [
        "load of model 'bad', made on another replica, failed: failed to load 'bad', Internal: ValueError: no engine",
        "load of model 'nobody', made on another replica, failed: "
        "failed to load 'nobody', failed to poll from model repository",
    ]  # fmt: skip
    assert await answer(engine, "shared") == 2


async def test_a_change_that_failed_is_tried_again_until_it_works(
    repository, engine, explicit, store, calls, warnings, monkeypatch
):
    monkeypatch.setattr(control, "RETRY_INTERVAL_S", 0.0)
    write(repository, "fixed", BROKEN)
    store.record(load("fixed"))
    store.record(load("shared"))
    await explicit.catch_up()
    await explicit.catch_up()
    assert len(warnings()) == 2
    write(repository, "fixed", times(repository, 5))
    await explicit.catch_up()
    await explicit.catch_up()
    assert await answer(engine, "fixed") == 5
    assert calls.made.count(("load", "fixed")) == 3
    assert calls.made.count(("load", "shared")) == 1


async def test_a_change_that_failed_waits_for_its_next_turn_or_for_news(explicit, store, calls):
    store.record(load("bad"))
    await explicit.catch_up()
    await explicit.catch_up()
    assert calls.made == [("load", "bad")]
    store.record(unload("shared"))
    await explicit.catch_up()
    assert calls.made == [("load", "bad"), ("load", "bad"), ("unload", "shared")]


async def test_a_model_that_comes_with_its_load_is_in_the_index_until_it_is_unloaded(repository, engine, explicit):
    await explicit.apply(load("guest", **whole(times(repository, 6), "guest")))
    assert rows(engine, "guest") == [{"name": "guest", "version": "1", "state": "READY"}]
    assert await answer(engine, "guest") == 6
    await explicit.apply(unload("guest"))
    assert rows(engine, "guest") == []
    with pytest.raises(NotFoundError, match="failed to load 'guest', failed to poll from model repository"):
        await explicit.apply(load("guest"))


async def test_files_that_come_with_a_load_replace_those_of_the_folder(repository, engine, explicit):
    await explicit.apply(load("whole_folder", **whole(times(repository, 9), "whole_folder")))
    assert await answer(engine, "whole_folder") == 9
    assert [row["state"] for row in rows(engine, "whole_folder")] == ["READY"]


@pytest.mark.parametrize("dependents", [True, False])
async def test_an_ensemble_takes_its_steps_with_it_only_when_asked(engine, explicit, dependents):
    await explicit.apply(load("both"))
    assert await answer(engine, "both") == 4
    await explicit.apply(unload("both", dependents))
    assert [engine.model(name).ready() for name in ("both", "one", "two")] == [False, *[not dependents] * 2]


async def test_a_load_that_fails_is_explained_in_one_line_and_not_recorded(engine, explicit, store):
    not_polled = "failed to poll from model repository"
    no_engine = "Internal: ValueError: no engine"
    for change, kind, message in (
        (load("nobody"), NotFoundError, f"failed to load 'nobody', {not_polled}"),
        (load("bad"), ModelLoadError, f"failed to load 'bad', {no_engine}"),
        (load("wrong", config="{"), ModelLoadError, f"failed to load 'wrong', {not_polled}"),
        (load("wrong", config=whole("", "somebody_else")["config"]), ModelLoadError,
         f"failed to load 'wrong', {not_polled}"),
    ):  # fmt: skip
        with pytest.raises((NotFoundError, ModelLoadError)) as caught:
            await explicit.apply(change)
        assert (type(caught.value), caught.value.message) == (kind, message)
    assert (store.changes(), store.version()) == ([], b"")
    assert [row["reason"] for row in rows(engine, "bad")] == [no_engine]


async def test_a_reload_that_fails_leaves_the_running_version_in_service(repository, engine, explicit):
    write(repository, "apart", times(repository, 3))
    await explicit.apply(load("apart"))
    write(repository, "apart", BROKEN)
    with pytest.raises(ModelLoadError, match=r"^failed to load 'apart', .*Internal: ValueError: no engine;?$"):
        await explicit.apply(load("apart"))
    assert await answer(engine, "apart") == 3
    write(repository, "apart", times(repository, 4))
    await explicit.apply(load("apart"))
    assert await answer(engine, "apart") == 4


async def test_a_load_with_files_that_fails_names_the_reason_and_leaves_nothing_in_the_index(engine, explicit):
    with pytest.raises(ModelLoadError, match=r"^failed to load 'wrong', .*Internal: ValueError: no engine;?$"):
        await explicit.apply(load("wrong", **whole(BROKEN, "wrong")))
    assert [row for row in rows(engine, "wrong") if row["state"] == "READY"] == []
