"""A real Triton that polls what a follower brings: no request fails, and nothing but what changed is loaded again."""

import asyncio

import numpy as np
import pytest

from serve_app.settings import TritonSettings
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
# Answers with its factor and the process that it is, which tells whether it was loaded again.
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
def repository(write, tmp_path):
    return write(tmp_path / "source", files_of("steady", v1=1) | files_of("changing", v1=1))


@pytest.fixture
def follow(models, repository, url, tmp_path, until):
    """The folder that a follower keeps, with the first push in it."""
    models.succeed("push", repository, url)
    served = tmp_path / "served"
    models.start("pull", url, served, "--follow", "--every", "0.2")
    until((served / "current").exists, "the first snapshot")
    return served / "current"


@pytest.fixture
def engine(follow):
    settings = TritonSettings(name="test", models=("*",), control_mode="poll", drain_timeout_s=5)
    engine = Engine(ModelRepository(follow, ["*"], None), settings)
    engine.start()
    # Python leaves its cache beside a model where it may write, and a poll takes that for a change, once.
    engine.poll()
    yield engine
    engine.stop()


async def ask(engine, model, version=-1):
    """The factor, and the process that answered."""
    asked = engine.model(model, version)
    request = asked.create_request(inputs={"x": np.ones((1, 1), np.float32)})
    answer = await anext(asked.async_infer(request))
    return tuple(np.from_dlpack(answer.outputs["y"])[0].tolist())


async def serve_until(engine, goal):
    """Requests in a loop while the repository is polled, as the deployment does it; each has to be answered."""

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


async def test_a_new_version_comes_while_every_request_is_answered(engine, models, repository, write, url):
    steady, first = await ask(engine, "steady"), await ask(engine, "changing")
    write(repository, files_of("changing", v2=2))
    pushing = asyncio.create_task(asyncio.to_thread(models.succeed, "push", repository, url))
    answers = await serve_until(engine, 2)
    await pushing
    assert set(answers) == {1, 2}
    assert answers == sorted(answers)
    assert await ask(engine, "steady") == steady, "what didn't change isn't loaded again"
    assert await ask(engine, "changing", 1) == first, "nor is the version that was there"


async def test_a_changed_version_comes_and_the_old_one_can_be_gone_back_to(
    engine, models, repository, write, url, objects
):
    steady = await ask(engine, "steady")
    before = objects.current
    write(repository, files_of("changing", v1=3))
    models.succeed("push", repository, url)
    assert set(await serve_until(engine, 3)) <= {1, 3}
    models.succeed("use", url, before)
    assert set(await serve_until(engine, 1)) <= {1, 3}
    assert await ask(engine, "steady") == steady


async def test_models_come_and_go(engine, models, repository, write, url, until, follow, objects):
    before = objects.current
    write(repository, files_of("new", v1=5))
    models.succeed("push", repository, url)
    until((follow / "new").exists, "the new model's folder")
    await asyncio.to_thread(engine.poll)
    assert (await ask(engine, "new"))[0] == 5
    models.succeed("use", url, before)
    until(lambda: not (follow / "new").exists(), "the new model's end")
    await asyncio.to_thread(engine.poll)
    until(lambda: not engine.model("new").ready(), "its unloading")
    assert (await ask(engine, "changing"))[0] == 1
