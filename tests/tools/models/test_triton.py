"""A real Triton that polls what a follower pulls: no request fails, and only what changed is reloaded."""

import asyncio

import numpy as np
import pytest

from serve_app.settings import TritonSettings
from serve_app.tools.models.history import use
from serve_app.tools.models.push import push
from serve_app.triton.engine import Engine
from serve_app.triton.repository import ModelRepository

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }} ]
version_policy {{ all {{ }} }}
"""
# Answers with its factor and its process ID, which changes when it is reloaded.
MODEL = """
import os
import numpy
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        y = numpy.array([[{factor}, os.getpid()]], dtype=numpy.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]) for _ in requests]
"""


def files_of(name, **factors):
    models = {f"{name}/{version[1:]}/model.py": MODEL.format(factor=factor) for version, factor in factors.items()}
    return {f"{name}/config.pbtxt": CONFIG.format(name=name)} | models


@pytest.fixture
def folder(write, tmp_path):
    return write(tmp_path / "source", files_of("steady", v1=1) | files_of("changing", v1=1))


@pytest.fixture
def follow(models, folder, repository, url, served, until):
    """The folder that a follower keeps, with the first push in it."""
    push(folder, repository)
    models.start("pull", url, served, "--follow", "--every", "0.2")
    until((served / "current").exists, "the first snapshot")
    return served / "current"


@pytest.fixture
def engine(follow):
    settings = TritonSettings(name="test", models=("*",), control_mode="poll", drain_timeout_s=5)
    engine = Engine(ModelRepository(follow, ["*"], None), settings)
    engine.start()
    # Python writes __pycache__ beside a model, which the next poll takes for a change.
    engine.poll()
    yield engine
    engine.stop()


async def ask(engine, model, version=-1):
    """Return the factor and the process that answered."""
    target = engine.model(model, version)
    request = target.create_request(inputs={"x": np.ones((1, 1), np.float32)})
    answer = await anext(target.async_infer(request))
    return tuple(np.from_dlpack(answer.outputs["y"])[0].tolist())


async def serve_until(engine, goal):
    """Send requests while the repository is polled, as the deployment does, until one is answered with the goal."""

    async def poll():
        while True:
            await asyncio.sleep(0.2)
            await asyncio.to_thread(engine.poll)

    answers = []
    polling = asyncio.create_task(poll())
    try:
        async with asyncio.timeout(60):
            while not answers or answers[-1] != goal:
                answers.append((await ask(engine, "changing"))[0])
                await asyncio.sleep(0)
    finally:
        polling.cancel()
    return answers


async def test_a_new_version_comes_while_every_request_is_answered(engine, folder, repository, write):
    steady, first = await ask(engine, "steady"), await ask(engine, "changing")
    write(folder, files_of("changing", v2=2))
    pushing = asyncio.create_task(asyncio.to_thread(push, folder, repository))
    answers = await serve_until(engine, 2)
    await pushing
    assert set(answers) == {1, 2}
    assert answers == sorted(answers)
    assert await ask(engine, "steady") == steady, "an unchanged model is not reloaded"
    assert await ask(engine, "changing", 1) == first, "an unchanged version is not reloaded"


async def test_a_changed_version_comes_and_the_previous_one_returns(engine, folder, repository, write):
    steady, before = await ask(engine, "steady"), repository.current_digest
    write(folder, files_of("changing", v1=3))
    push(folder, repository)
    assert set(await serve_until(engine, 3)) <= {1, 3}
    use(repository, before)
    assert set(await serve_until(engine, 1)) <= {1, 3}
    assert await ask(engine, "steady") == steady


async def test_models_come_and_go(engine, folder, repository, write, until, follow):
    before = repository.current_digest
    write(folder, files_of("new", v1=5))
    push(folder, repository)
    until((follow / "new").exists, "the new model's folder")
    await asyncio.to_thread(engine.poll)
    assert (await ask(engine, "new"))[0] == 5
    use(repository, before)
    until(lambda: not (follow / "new").exists(), "the removal of the new model")
    await asyncio.to_thread(engine.poll)
    until(lambda: not engine.model("new").ready(), "the unloading of the new model")
    assert (await ask(engine, "changing"))[0] == 1
