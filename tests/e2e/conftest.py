"""One real service for all tests: `scripts/serve` on ports of its own, with Ray, Triton and the demo weights."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from serve_app.launch.leftovers import processes_of
from serve_app.settings import PROJECT_ROOT

START_PATIENCE_S = 240
STOP_PATIENCE_S = 90


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_config(folder, port, **detection):
    """The committed configuration on another port, with what a test changes."""
    config = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())
    config["http_options"]["port"] = port
    arguments = config["applications"][0]["args"]
    arguments["detection"]["models"]["nano"]["weights"] = "demo"
    arguments["detection"] |= detection
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass
class Service:
    """A run of `scripts/serve`."""

    process: subprocess.Popen
    port: int
    config: Path
    log: Path

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def output(self):
        return self.log.read_text()

    def replicas(self, deployment):
        """Process ids of a deployment's replicas in this run."""
        wanted = f"ray::ServeReplica:serve_app:{deployment}".encode()
        return [pid for pid in self.processes() if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(wanted)]

    def mark(self):
        environment = Path(f"/proc/{self.serve_run()}/environ").read_bytes().split(b"\0")
        return next(entry for entry in environment if entry.startswith(b"SERVE_APP_RUN=")).split(b"=")[1].decode()

    def serve_run(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def processes(self):
        return processes_of(self.mark())

    def wait_until_ready(self, patience_s=START_PATIENCE_S):
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if "ready in " in self.output():
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.3)
        pytest.fail(f"the service did not come up:\n{self.output()[-4000:]}")

    def stop(self):
        """One Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_PATIENCE_S)


def start(config, port, log):
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, PROJECT_ROOT / "scripts" / "serve", config],
            cwd=PROJECT_ROOT, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )  # fmt: skip
    return Service(process, port, config, log)


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    port = free_port()
    run = start(write_config(folder, port), port, folder / "serve.log")
    try:
        run.wait_until_ready()
        mark = run.mark()
        yield run
    finally:
        status = run.stop() if run.process.poll() is None else run.process.returncode
    assert status == 0, run.output()[-4000:]
    assert "that were left" not in run.output()
    assert processes_of(mark) == []
    assert [name for name in os.listdir("/dev/shm") if "triton" in name] == []


@pytest.fixture(scope="session")
def client(service):
    with httpx.Client(base_url=service.url, timeout=60) as one:
        yield one


@pytest.fixture
def configure():
    """Write a configuration for a run that is meant to fail."""
    return lambda folder, **detection: write_config(folder, free_port(), **detection)


@pytest.fixture
def start_service():
    return lambda config, log: start(config, 0, log)
