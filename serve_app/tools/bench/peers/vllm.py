"""vLLM's own front end, what `vllm serve` runs, over the same engine with the same arguments."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from serve_app.settings import LanguageModelSettings
from serve_app.tools.bench.peers.processes import LOGS, answers, current_environment, free_port, running

SILENT = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}  # as the service is


@contextmanager
def vllm_serve(model: LanguageModelSettings) -> Iterator[str]:
    """Its address; the arguments go through a file, as vLLM reads them there under the same names."""
    port = free_port()
    LOGS.mkdir(parents=True, exist_ok=True)
    arguments = {key.replace("_", "-"): value for key, value in model.engine.items()}
    options = arguments | {"host": "127.0.0.1", "port": port, "served-model-name": [model.name]}
    options |= {"model": model.source or model.name} | ({"tokenizer": model.tokenizer} if model.tokenizer else {})
    path = LOGS / "vllm.yaml"
    path.write_text(yaml.safe_dump(options | {"disable-uvicorn-access-log": True}))
    environment = current_environment() | SILENT | model.environment
    url = f"http://127.0.0.1:{port}"
    # not the program `vllm`: it asks for its own version, which the CPU's package doesn't give under that name
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--config", str(path)]
    with running("vllm", command, lambda: answers(f"{url}/health"), environment):
        yield url
