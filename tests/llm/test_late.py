"""A language model's deployment: its class and arguments reach a replica without vLLM, which the replica imports."""

import subprocess
import sys

import pytest
from ray import cloudpickle

from serve_app.app import build_language_model
from serve_app.llm.late import LateLanguageModel
from serve_app.llm.limits import LIMITS, Limits
from serve_app.llm.replica import LanguageModel
from serve_app.settings import LanguageModelSettings

READ = """
import sys
from ray import cloudpickle
kind, arguments = cloudpickle.loads(sys.stdin.buffer.read())
assert not {"vllm", "torch", "ray.serve.llm"} & set(sys.modules)
print(kind.__name__, arguments[0])
"""


@pytest.fixture
def deployment():
    settings = LanguageModelSettings(
        name="small", source="/models/small", accelerator="cpu", priority="low", max_sequences=3
    )
    return build_language_model(settings)._bound_deployment


def test_what_a_replica_is_sent_imports_no_engine(deployment):
    sent = cloudpickle.dumps((deployment.func_or_class, deployment.init_args))
    read = subprocess.run([sys.executable, "-c", READ], input=sent, capture_output=True, check=True)
    assert read.stdout.decode().split() == ["LateLanguageModel", "low"]
    assert cloudpickle.loads(deployment.init_args[1]).experimental_configs[LIMITS] == Limits(3)


async def test_it_is_the_language_model_to_all_who_call_it(deployment, monkeypatch):
    ended = []

    async def begin(model, config):
        model.config = config

    async def end(model):
        ended.append(model.config.model_id)

    monkeypatch.setattr(LanguageModel, "__init__", begin)
    monkeypatch.setattr(LanguageModel, "__del__", end)
    model = object.__new__(LateLanguageModel)
    await model.__init__(*deployment.init_args)
    assert model.openai.__func__ is LanguageModel.openai
    assert hasattr(model, "record_autoscaling_stats")
    await model.__del__()
    assert ended == ["small"]
