"""One real service for all tests: `scripts/serve` on ports of its own, with Ray, Triton and the demo weights."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import yaml
from PIL import Image
from playwright.sync_api import sync_playwright

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.baselines.processes import free_port
from serve_app.tools.launch.run import processes_of
from serve_app.tools.launch.status import read_progress, read_status

START_PATIENCE_S = 600  # twelve times what it takes on an idle machine
LABORATORY = PROJECT_ROOT / "tests" / "triton" / "embedded" / "models"
LABORATORY_MODELS = ["accumulate", "chain", "decoupled", "echo", "failing", "identity", "parameters", "slow"]
STOP_PATIENCE_S = 90
READY = "(?m)^ready in "  # not a port that is already in use
CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ROUTER_PORTS = range(30000, 31001)  # Serve's own choice for replicas that HAProxy sends to


def pytest_collection_modifyitems(items):
    """Tests that start a service of their own come first, while no other is up: Ray's dashboard has one port."""
    items.sort(key=lambda item: "start_service" not in getattr(item, "fixturenames", ()))
    for item in items:
        if {"service", "start_service"} & set(getattr(item, "fixturenames", ())):  # one of them waits for its start
            item.add_marker(pytest.mark.timeout(2 * START_PATIENCE_S))


def write_config(folder, **detection):
    """The committed configuration on free ports, with what a test changes."""
    config = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())
    config["http_options"]["port"] = free_port()
    config["grpc_options"]["port"] = free_port()
    arguments = config["applications"][0]["args"]
    arguments["detection"]["models"]["nano"]["weights"] = "demo"
    arguments["llms"] = []  # a minute of the processor; tests/e2e/llm has a service with them
    arguments["playground"] = None
    deployments = config["applications"][0]["deployments"]
    deployments.remove(next(entry for entry in deployments if entry["name"] == "playground"))
    arguments["detection"] |= detection
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def with_playground(path):
    config = yaml.safe_load(path.read_text())
    (application,) = config["applications"]
    application["args"]["playground"] = {"service_url": f"http://127.0.0.1:{config['http_options']['port']}"}
    application["deployments"].append(
        {"name": "playground", "num_replicas": 1, "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.05}}
    )
    path.write_text(yaml.safe_dump(config))
    return path


def with_laboratory(path):
    """Two routers, and a second deployment: two replicas with models of every kind, under model control."""
    config = yaml.safe_load(path.read_text())
    (application,) = config["applications"]
    application["args"]["triton"].append(
        {"name": "laboratory", "model_repository": str(LABORATORY), "models": LABORATORY_MODELS,
         "control_mode": "explicit", "sequences": True, "shared_memory_mib": 4}
    )  # fmt: skip
    (router,) = [entry for entry in application["deployments"] if entry["name"] == "router"]
    del router["autoscaling_config"]
    router["num_replicas"] = 2
    application["deployments"].append(
        {"name": "laboratory", "num_replicas": 2, "max_ongoing_requests": 64, "ray_actor_options": {"num_cpus": 0.1}}
    )
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass
class Service:
    """A run of `scripts/serve`."""

    process: subprocess.Popen
    config: Path
    log: Path

    laboratory, laboratory_models = LABORATORY, LABORATORY_MODELS
    free_port = staticmethod(free_port)

    @property
    def port(self):
        return yaml.safe_load(self.config.read_text())["http_options"]["port"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    @property
    def grpc_host(self):
        return f"127.0.0.1:{yaml.safe_load(self.config.read_text())['grpc_options']['port']}"

    def output(self):
        return self.log.read_text()

    def replicas(self, deployment):
        """Process ids of a deployment's replicas in this run."""
        wanted = f"ray::ServeReplica:serve_app:{deployment}".encode()
        return [pid for pid in self.processes() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(wanted)]

    def router_urls(self):
        """Each router replica by its own port, past HAProxy."""
        ports = []
        for pid in self.replicas("router"):
            listening = psutil.Process(pid).net_connections("tcp")
            ports += [one.laddr.port for one in listening if one.status == "LISTEN" and one.laddr.port in ROUTER_PORTS]
        return [f"http://127.0.0.1:{port}" for port in sorted(ports)]

    def is_healthy(self):
        """Serve has as many replicas of each deployment as it wants."""
        return all(state == "HEALTHY" for _, state in read_progress().deployments)

    def message_of(self, deployment):
        """What Ray's dashboard says of it."""
        applications = read_status().get("applications") or {}
        return "".join(one["deployments"][deployment]["message"] for one in applications.values())

    def mark(self):
        environment = Path(f"/proc/{self.serve_run()}/environ").read_bytes().split(b"\0")
        return next(entry for entry in environment if entry.startswith(b"SERVE_APP_RUN=")).split(b"=")[1].decode()

    def serve_run(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def processes(self):
        return processes_of(self.mark())

    def wait_until_ready(self, patience_s=START_PATIENCE_S, told=READY):
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if re.search(told, self.output()):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.3)
        pytest.fail(f"the service did not come up:\n{self.output()[-4000:]}")

    @contextmanager
    def up(self, patience_s=START_PATIENCE_S, told=READY):
        """From ready to one Ctrl-C, after which nothing of it is left."""
        try:
            self.wait_until_ready(patience_s, told)
            mark = self.mark()
            yield self
        finally:
            status = self.stop() if self.process.poll() is None else self.process.returncode
        assert status == 0, self.output()[-4000:]
        assert processes_of(mark) == []

    def stop(self):
        """One Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_PATIENCE_S)


def start(config, log, **environment):
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, PROJECT_ROOT / "scripts" / "serve", config],
            cwd=PROJECT_ROOT, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment, start_new_session=True,
        )  # fmt: skip
    return Service(process, config, log)


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    config = with_playground(with_laboratory(write_config(folder)))
    run = start(config, folder / "serve.log")
    with run.up():
        yield run
    assert "leftover processes" not in run.output()
    assert [name for name in os.listdir("/dev/shm") if "serve_app_triton" in name] == []


@pytest.fixture(scope="session")
def client(service):
    with httpx.Client(base_url=service.url, timeout=60) as one:
        yield one


def wait_until(condition, patience_s, what):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def wait_for():
    return wait_until


@pytest.fixture(scope="session")
def configure():
    """Write a configuration for a run of a test's own."""
    return write_config


@pytest.fixture(scope="session")
def add_playground():
    """The page at /ui, in a configuration that a test wrote."""
    return with_playground


@pytest.fixture(scope="session")
def start_service():
    return start


@pytest.fixture
def browse():
    """Open pages of a service's playground in a browser, which may not complain or ask another host for anything."""
    told, asked, addresses = [], set(), set()
    # for one test at a time: while it runs, its thread has an event loop that other tests would stumble over
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)

        def open_page(url):
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.on("console", lambda message: message.type == "error" and told.append(message.text))
            page.on("pageerror", lambda problem: told.append(str(problem)))
            page.on("request", lambda request: asked.add(urlsplit(request.url)[:2]))
            addresses.add(urlsplit(url)[:2])
            page.set_default_timeout(60_000)
            page.goto(f"{url}/ui")
            page.wait_for_selector("#detect")
            return page

        yield open_page
        browser.close()
    assert told == []
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
