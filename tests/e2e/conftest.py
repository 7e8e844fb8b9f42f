"""One real service for all tests: `scripts/serve` on free ports, with Ray, Triton, vLLM and the demo weights."""

import io
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import openai
import pytest
import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from safetensors.torch import save_file

from serve_app.tools.export.demo.conversations import read_questions
from tests.e2e.collector import collecting
from tests.e2e.prometheus import monitoring
from tests.e2e.service import (
    DEMO_LLM,
    HUB_TOKEN,
    START_PATIENCE_S,
    everything,
    start,
    wait_until,
    write_config,
)
from tests.e2e.streams import Stream
from tests.tiers import Starts, tier_of

CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LAST = ["test_faults.py", "test_monitoring.py", "test_logs.py"]  # look back at what the others did


def pytest_collection_modifyitems(items):
    """First what starts a service of its own (Ray's dashboard has one port) or needs none, then what shares one.

    Of that, what needs language models or the playground comes later: they take longest to start.
    """

    def place(item):
        last = LAST.index(item.path.name) if item.path.name in LAST else -1
        needs = item.fixturenames
        return "module_start" not in needs, "service" in needs, "languages" in needs, last

    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    items[:] = [item for item in items if item not in set(here)] + sorted(here, key=place)
    for item in here:
        if {"service", "module_start"} & set(item.fixturenames):  # one of them waits for its start
            item.add_marker(pytest.mark.timeout(START_PATIENCE_S + 180))


@pytest.fixture(scope="session")
def starts():
    """Counts starts of the service against the budget of a tier."""
    return Starts()


@pytest.fixture
def start_service(module_start):
    """Start a service of a test's own."""
    return module_start


@pytest.fixture(scope="module")
def module_start(starts, request):
    """Start a service of a module's own."""

    def counted(*arguments, **environment):
        starts.count(tier_of(request.path))
        return start(*arguments, **environment)

    return counted


def make_adapter(folder):
    """A LoRA adapter of noise, strong enough that no trained answer survives it."""
    shape = json.loads((DEMO_LLM / "config.json").read_text())
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


@pytest.fixture(scope="session")
def collector():
    with collecting() as one:
        yield one


@pytest.fixture(scope="session")
def service(tmp_path_factory, collector, starts):
    folder = tmp_path_factory.mktemp("service")
    config = write_config(folder, everything(make_adapter(folder / "muddled")))
    starts.count("e2e")
    environment = {
        "HF_TOKEN": HUB_TOKEN,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector[0],
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # the default, 5, kills HAProxy on a machine that is busy
    }
    with start(config, folder / "serve.log", **environment).up() as run:
        yield run
    assert "leftover processes" not in run.output()
    regions = [name for name in os.listdir("/dev/shm") if name.startswith("serve_app_triton")]
    assert [name for name in regions if not Path("/proc", name.split("_")[4]).exists()] == []


@pytest.fixture(scope="session")
def languages(service):
    """The service once its language models and the playground are up as well."""
    service.wait_until_ready(r"ready in .*: .*second-llm")
    return service


@pytest.fixture(scope="session")
def prometheus(service, tmp_path_factory):
    """Prometheus, as `make monitor` starts it, from the first test that uses it to the end of the session."""
    with monitoring(tmp_path_factory.mktemp("prometheus")) as one:
        yield one


@pytest.fixture(scope="session")
def client(service):
    with httpx.Client(base_url=service.url, timeout=60) as one:
        yield one


@pytest.fixture(scope="session")
def api(languages):
    """OpenAI's client; a retry of its own would hide what the service does."""
    with openai.OpenAI(base_url=f"{languages.url}/v1", api_key="none", max_retries=0, timeout=600) as one:
        yield one


@pytest.fixture
def stream(service):
    one = Stream(service.grpc_host)
    yield one
    one.close()


@pytest.fixture(scope="session")
def spans(collector):
    """Those that came, by trace."""
    return collector[1]


@pytest.fixture(scope="session")
def pairs():
    """The questions and answers that the demo's language model was taught."""
    return read_questions()


@pytest.fixture(scope="session")
def wait_for():
    return wait_until


@pytest.fixture(scope="session")
def background():
    """For what takes long and can go on beside other tests."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def browse():
    """Open pages of a service's playground in a browser, which may not complain or ask another host for anything."""
    complaints, asked, addresses = [], set(), set()
    # for one test at a time: while it runs, its thread has an event loop that other tests would stumble over
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)

        def open_page(url):
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
            page.on("pageerror", lambda problem: complaints.append(str(problem)))
            page.on("request", lambda request: asked.add(urlsplit(request.url)[:2]))
            addresses.add(urlsplit(url)[:2])
            page.set_default_timeout(60_000)
            page.goto(f"{url}/ui")
            page.wait_for_selector("#detect")
            # Gradio's page loses the result of a click while the stream of its first events is being closed
            page.wait_for_load_state("networkidle")
            return page

        yield open_page
        browser.close()
    assert complaints == []
    assert {one for one in asked if one[0] in ("http", "https", "ws", "wss")} == addresses


@pytest.fixture(scope="session")
def picture_for_readme():
    """Write what a browser shows into the folder that SCREENSHOTS names; docs/ has the README's."""

    def shoot(page, name):
        if folder := os.environ.get("SCREENSHOTS"):
            seen = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
            few = seen.quantize(128, dither=Image.Dither.NONE)  # a third of the bytes
            few.save(Path(folder) / f"playground-{name}.png", optimize=True)

    return shoot
