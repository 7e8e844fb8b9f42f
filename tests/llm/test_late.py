"""A language model's deployment: its class and arguments reach a replica without vLLM, which the replica imports."""

import subprocess
import sys

import pytest

from serve_app.errors import ModelLoadError
from serve_app.llm.late import LateLanguageModel
from serve_app.llm.limits import LIMITS, Limits
from serve_app.llm.replica import LanguageModel
from serve_app.settings import LanguageModelSettings

BUILD = """
import sys
from ray import cloudpickle
from serve_app.app import bind_language_model
from serve_app.settings import LanguageModelSettings
bound = bind_language_model(LanguageModelSettings(name="small", engine={"dtype": "float32"}))._bound_deployment
print(*{"vllm", "torch", "ray.serve.llm"} & set(sys.modules))
sys.stdout.flush()
sys.stdout.buffer.write(cloudpickle.dumps((bound.func_or_class, bound.init_args)))
"""
READ = """
import sys
from ray import cloudpickle
kind, (settings,) = cloudpickle.loads(sys.stdin.buffer.read())
print(kind.__name__, settings.name, *{"vllm", "torch", "ray.serve.llm"} & set(sys.modules))
"""


def run(code, given=b""):
    return subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True).stdout


def test_neither_who_builds_the_application_nor_who_receives_it_imports_an_engine():
    imported, _, sent = run(BUILD).partition(b"\n")
    assert imported == b""
    assert run(READ, sent).split() == [b"LateLanguageModel", b"small"]


async def test_it_is_the_language_model_to_all_who_call_it(monkeypatch):
    ended = []

    async def begin(model, config):
        model.config = config

    async def end(model):
        ended.append(model.config.experimental_configs[LIMITS])

    monkeypatch.setattr(LanguageModel, "__init__", begin)
    monkeypatch.setattr(LanguageModel, "__del__", end)
    model = object.__new__(LateLanguageModel)
    await model.__init__(LanguageModelSettings(name="small", source="/models/small", max_sequences=3))
    assert model.openai.__func__ is LanguageModel.openai
    assert hasattr(model, "record_autoscaling_stats")
    await model.__del__()
    assert ended == [Limits(3)]


async def test_what_only_vllm_refuses_is_an_error_of_the_replica():
    model = object.__new__(LateLanguageModel)
    with pytest.raises(ModelLoadError, match=r"(?s)model 'small' can't be loaded: .*lora_config"):
        await model.__init__(LanguageModelSettings(name="small", source="/models/small", adapters={"folder": "/here"}))
