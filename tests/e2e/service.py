"""The service under test: its configuration, a run of `scripts/serve`, and what tests read of its processes."""

import ipaddress
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.baselines.processes import free_port
from serve_app.tools.bench.baselines.service import give_pictures_a_deployment
from serve_app.tools.launch.run import processes_of
from serve_app.tools.launch.status import read_status

START_PATIENCE_S = 600  # seven times what it takes on two idle cores
STOP_PATIENCE_S = 90
READY = "(?m)^ready in "  # not a port that is already in use
LABORATORY = PROJECT_ROOT / "tests" / "triton" / "embedded" / "models"
LABORATORY_MODELS = ["accumulate", "chain", "decoupled", "echo", "failing", "identity", "parameters", "slow"]
DEMO_LLM = PROJECT_ROOT / "model_repository" / "weights" / "demo-llm"
SHAPES = PROJECT_ROOT / "docs" / "shapes.jpg"
ROUTER_PORTS = range(30000, 31001)  # Serve's own choice for replicas that HAProxy sends to
MANIFEST = PROJECT_ROOT / "kuberay" / "manifests" / "local-cpu" / "rayservice.yaml"
FOLDERS = ("HOME", "HF_HOME", "XDG_CACHE_HOME")  # of a pod, where they are volumes
HUB_TOKEN = "hf_neverToBeSeenAnywhere"
SHARES = {"router": 0.1, "vision": 0.3, "baseline": 0.1, "laboratory": 0.1, "playground": 0.05}  # of two cores


def write_config(folder, change=None, **detection):
    """The committed configuration on free ports, with pictures alone; `change` gets its one application."""
    config = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())
    config["http_options"]["port"] = free_port()
    config["grpc_options"]["port"] = free_port()
    (application,) = config["applications"]
    arguments = application["args"]
    arguments["detection"]["models"]["nano"]["weights"] = "demo"
    arguments["detection"] |= detection
    arguments |= {"llms": [], "playground": None}
    application["deployments"] = [one for one in application["deployments"] if one["name"] != "playground"]
    if change:
        change(config)
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def language_model(name, min_replicas, engine=None, **keys):
    """The demo's weights under a name, as one kind of model."""
    common = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 32, "kv_cache_memory_bytes": 128 << 20}
    deployment = {"autoscaling_config": {"min_replicas": min_replicas, "max_replicas": 1} | keys.pop("scaling", {})}
    deployment |= keys.pop("deployment", {})
    model = {"name": name, "source": str(DEMO_LLM), "accelerator": "cpu", "num_cpus": 0.1}
    model |= {"environment": {"CXX": "no compiler"}}  # none is needed, and the cpu image has none
    return model | {"engine": common | (engine or {}), "deployment": deployment} | keys


def language_models(adapter):
    """One as the README has it, one with an adapter, tools and a short queue, one that sleeps, one without weights."""
    lora = {"lora_modules": [{"name": "muddled", "path": str(adapter)}], "max_lora_rank": 8}
    tools = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
    return [
        language_model("demo-llm", 1),
        language_model("second-llm", 1, {"max_model_len": 512} | lora | tools,
                       deployment={"max_ongoing_requests": 12, "max_queued_requests": 6}),
        language_model("embedder", 0, {"runner": "pooling", "convert": "embed"}, wake_timeout_s=300,
                       scaling={"downscale_delay_s": 5, "downscale_to_zero_delay_s": 5}),
        language_model("nowhere", 0, source="nobody/has-this-model", wake_timeout_s=5,
                       deployment={"max_constructor_retry_count": 1}),
    ]  # fmt: skip


def everything(adapter):
    """A change of a configuration: two routers, models of every kind under model control, and the playground."""

    def change(config):
        (application,) = config["applications"]
        give_pictures_a_deployment(config)
        arguments, deployments = application["args"], application["deployments"]
        arguments["playground"] = {"service_url": f"http://127.0.0.1:{config['http_options']['port']}"}
        arguments["llms"] = language_models(adapter)
        arguments["triton"].append(
            {"name": "laboratory", "model_repository": str(LABORATORY), "models": LABORATORY_MODELS,
             "control_mode": "explicit", "load_files": True, "sequences": True, "shared_memory_mib": 4}
        )  # fmt: skip
        deployments.append({"name": "laboratory", "num_replicas": 2, "max_ongoing_requests": 64})
        deployments.append({"name": "playground", "num_replicas": 1, "max_ongoing_requests": 256})
        for one in deployments:
            one["ray_actor_options"] = {"num_cpus": SHARES[one["name"]]}
        (router,) = [one for one in deployments if one["name"] == "router"]
        router["num_replicas"] = 2
        config["http_options"]["host"] = "127.0.0.1"
        arguments["router"]["open_model_control"] = True
        config["logging_config"]["encoding"] = "JSON"
        config["tracing_config"] |= {"enabled": True, "sampling_ratio": 0.0}

    return change


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended since it was listed


def connections_of(pid):
    try:
        return psutil.Process(pid).net_connections("inet")
    except psutil.NoSuchProcess:
        return []


def manifest_environment():
    """What the committed manifest for one machine gives its container."""
    (service,) = [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one["kind"] == "RayService"]
    (container,) = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"] if one["name"] not in FOLDERS}


@dataclass
class Service:
    """A run of `scripts/serve`."""

    process: subprocess.Popen
    config: Path
    log: Path

    laboratory, laboratory_models = LABORATORY, LABORATORY_MODELS

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
        return [pid for pid in self.processes() if command_line(pid).startswith(wanted)]

    def router_urls(self):
        """Each router replica by its own port, past HAProxy."""
        ports = []
        for pid in self.replicas("router"):
            ports += [one.laddr.port for one in connections_of(pid) if one.status == "LISTEN"]
        ports = [port for port in ports if port in ROUTER_PORTS]
        return [f"http://127.0.0.1:{port}" for port in sorted(ports)]

    def open_ports(self):
        """Those that other machines reach, of every process of this run."""
        connections = [one for pid in self.processes() for one in connections_of(pid)]
        listening = [one for one in connections if one.status == psutil.CONN_LISTEN]
        assert len(listening) > 10, "Ray's own and the routers' ports"
        addresses = {one.laddr.port: one.laddr.ip.removeprefix("::ffff:") for one in listening}
        return {port for port, address in addresses.items() if not ipaddress.ip_address(address).is_loopback}

    def status_of(self, deployment):
        """What Ray's dashboard says of a deployment."""
        (application,) = read_status()["applications"].values()
        return application["deployments"][deployment]

    def is_healthy(self, deployment):
        """Serve has as many replicas of it as it wants."""
        return self.status_of(deployment)["status"] == "HEALTHY"

    def mark(self):
        environment = Path(f"/proc/{self.serve_run()}/environ").read_bytes().split(b"\0")
        return next(entry for entry in environment if entry.startswith(b"SERVE_APP_RUN=")).split(b"=")[1].decode()

    def serve_run(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def processes(self):
        return processes_of(self.mark())

    def wait_until_ready(self, ready=READY):
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if re.search(ready, self.output()):
                return
            time.sleep(0.3)
        pytest.fail(f"the service is not up after {START_PATIENCE_S} s; its log ends with:\n{self.output()[-4000:]}")

    @contextmanager
    def up(self):
        """From ready to one Ctrl-C, after which nothing of it is left."""
        mark = ""
        try:
            self.wait_until_ready()
            mark = self.mark()
            yield self
        finally:
            status = self.stop() if self.process.poll() is None else self.process.returncode
        assert status == 0, self.output()[-4000:]
        assert processes_of(mark) == []

    def stop(self):
        """One Ctrl-C. If that does not end it in time, a second one, which kills what is left, and the test fails."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(STOP_PATIENCE_S)
            pytest.fail(f"Ctrl-C did not end the service in {STOP_PATIENCE_S} s:\n{self.output()[-4000:]}")


def start(config, log, **environment):
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, PROJECT_ROOT / "scripts" / "serve", config],
            cwd=PROJECT_ROOT, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment, start_new_session=True,
        )  # fmt: skip
    return Service(process, config, log)


def wait_until(condition, patience_s, what):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.1)
