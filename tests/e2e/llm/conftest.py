"""One real service with several language models beside the pictures, for all tests of this folder."""

import gzip
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
import torch
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from safetensors.torch import save_file

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo.conversations import read_questions

DEMO = PROJECT_ROOT / "model_repository" / "weights" / "demo-llm"
TOKEN = "hf_neverToBeSeenAnywhere"
EVERYTHING_UP_S = 900


def engine(**arguments):
    common = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 32, "kv_cache_memory_bytes": 128 << 20}
    return common | arguments


def language_model(name, scaling, **keys):
    deployment = {"autoscaling_config": {"max_replicas": 1} | scaling}
    deployment |= keys.pop("deployment", {})
    common = {"source": str(DEMO), "accelerator": "cpu", "num_cpus": 0.2, "engine": engine()}
    return common | {"name": name, "deployment": deployment} | keys


def models(adapter):
    """The demo's weights under names that each need something else of the service."""
    return [
        language_model("demo-llm", {"min_replicas": 1}),
        language_model(
            "second-llm",
            {"min_replicas": 1},
            engine=engine(
                max_model_len=512,
                lora_modules=[{"name": "muddled", "path": str(adapter)}],
                max_lora_rank=8,
                enable_auto_tool_choice=True,
                tool_call_parser="hermes",
            ),
            deployment={"max_ongoing_requests": 32, "max_queued_requests": 64},
        ),
        language_model(
            "embedder",
            {"min_replicas": 0, "downscale_delay_s": 5, "downscale_to_zero_delay_s": 5},
            engine=engine(runner="pooling", convert="embed"),
        ),
        *(
            language_model(name, {"min_replicas": 0}, deployment={"max_constructor_retry_count": 1}, **keys)
            for name, keys in (
                ("nowhere", {"source": "nobody/has-this-model", "wake_timeout_s": 5}),
                ("cramped", {"engine": engine(kv_cache_memory_bytes=1 << 16), "wake_timeout_s": 5}),
            )
        ),
    ]


def make_adapter(folder):
    """A LoRA adapter of noise, strong enough that no trained answer survives it."""
    shape = json.loads((DEMO / "config.json").read_text())
    hidden, rank = shape["hidden_size"], 8
    torch.manual_seed(0)
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        place = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        tensors[f"{place}.lora_A.weight"] = torch.randn(rank, hidden)
        tensors[f"{place}.lora_B.weight"] = torch.randn(hidden, rank)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["o_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder


SPANS = defaultdict(list)  # by trace, in hexadecimal


class Collector(BaseHTTPRequestHandler):
    """Takes OpenTelemetry's spans over HTTP, as a collector does."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    SPANS[span.trace_id.hex()].append(span)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="package")
def collector():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="session")
def spans():
    """Those that came, by trace."""
    return SPANS


@pytest.fixture(scope="package")
def languages(tmp_path_factory, configure, add_playground, start_service, collector):
    folder = tmp_path_factory.mktemp("languages")
    path = add_playground(configure(folder))
    config = yaml.safe_load(path.read_text())
    (application,) = config["applications"]
    arguments = application["args"]
    arguments["baseline"] = None
    arguments["llms"] = models(make_adapter(folder / "muddled"))
    application["deployments"] = [one for one in application["deployments"] if one["name"] != "baseline"]
    config["logging_config"]["encoding"] = "JSON"
    config["tracing_config"] |= {"enabled": True, "sampling_ratio": 0.0}
    path.write_text(yaml.safe_dump(config))
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    run = start_service(path, folder / "serve.log", HF_TOKEN=TOKEN, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    with run.up(EVERYTHING_UP_S, told=r"ready in .*: .*second-llm"):
        yield run


@pytest.fixture(scope="package")
def api(languages):
    """OpenAI's client; a retry of its own would hide what the service does."""
    with openai.OpenAI(base_url=f"{languages.url}/v1", api_key="none", max_retries=0, timeout=600) as client:
        yield client


@pytest.fixture(scope="session")
def hub_token():
    """What the service was given as HF_TOKEN."""
    return TOKEN


@pytest.fixture(scope="session")
def demo_folder():
    return DEMO


@pytest.fixture(scope="session")
def pairs():
    """What the demo's model was taught."""
    return read_questions()
