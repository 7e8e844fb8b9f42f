"""What `scripts/serve` checks, reads of Ray, and clears up."""

import os
import socket
import subprocess
import sys
import time

import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT, read_config, read_environment_file, settings_of
from serve_app.telemetry.autoscaling import require_policy
from serve_app.tools.launch.leftovers import MARK, end_leftovers, processes_of
from serve_app.tools.launch.preflight import (
    policies_of,
    ports_of,
    require_free,
    require_gpus,
    require_one_playground,
)
from serve_app.tools.launch.watch import interpret
from serve_app.triton.plans import Gpu

RAISED = """ray::ServeReplica:serve_app:vision.initialize_and_get_metadata() (pid=1)
RuntimeError: Traceback (most recent call last):
  File "engine.py", line 134
serve_app.errors.ModelLoadError: model 'yolo' can't be loaded: Internal: no such file
"""


def status(application="DEPLOYING", message="", **deployments):
    described = {name: {"status": state, "message": text} for name, (state, text) in deployments.items()}
    return {"applications": {"serve_app": {"status": application, "message": message, "deployments": described}}}


def test_a_port_in_use_is_refused_with_its_number_and_name():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} \(http_options.port\): address already in use"):
            require_free(port, "http_options.port")


def test_a_free_port_passes():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    require_free(port, "http_options.port")


def test_the_grpc_port_counts_only_where_grpc_is_served():
    assert ports_of({}) == {"http_options.port": 8000}
    served = {"http_options": {"port": 1}, "grpc_options": {"port": 8001, "grpc_servicer_functions": ["f"]}}
    assert ports_of(served) == {"http_options.port": 1, "grpc_options.port": 8001}


def test_without_a_gpu_what_would_wait_for_one_is_named():
    config = read_config(PROJECT_ROOT / "configs" / "serve.gpu.yaml")
    settings = settings_of(config)
    require_gpus(config, settings, Gpu("NVIDIA L4", (8, 9)))
    with pytest.raises(ConfigurationError, match=r"^vision, streaming, bulk, baseline, qwen2\.5-3b ask for GPUs"):
        require_gpus(config, settings, None)
    on_cpu = read_config(PROJECT_ROOT / "configs" / "serve.yaml")
    require_gpus(on_cpu, settings_of(on_cpu), None)


@pytest.mark.parametrize("port", [80000, 0, "abc", None])
def test_what_is_no_port_number_is_refused(port):
    with pytest.raises(ConfigurationError, match=r"http_options\.port: .* is no port number"):
        ports_of({"http_options": {"port": port}})


def test_the_committed_environment_turns_haproxy_on():
    values = read_environment_file(PROJECT_ROOT / "configs" / "ray.env")
    assert values["RAY_SERVE_ENABLE_HA_PROXY"] == values["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert values["GRPC_ENABLE_FORK_SUPPORT"] == "0"


def test_a_line_that_is_no_assignment_is_refused_with_its_place(tmp_path):
    path = tmp_path / "ray.env"
    path.write_text("# comment\n\nA=1\nnonsense\n")
    with pytest.raises(ConfigurationError, match=r"ray\.env:4: not KEY=VALUE: 'nonsense'"):
        read_environment_file(path)


def test_nothing_is_known_while_ray_says_nothing():
    assert interpret({}) == interpret({"applications": {}})
    assert not interpret({}).up


def test_up_means_every_application_runs():
    progress = interpret(status("RUNNING", vision=("HEALTHY", ""), router=("HEALTHY", "")))
    assert progress.up
    waiting = interpret(status("DEPLOYING", vision=("UPDATING", ""), router=("HEALTHY", "")))
    assert not waiting.up
    assert waiting.deployments == (("vision", "UPDATING"), ("router", "HEALTHY"))


def test_a_model_that_can_not_be_loaded_is_final_at_the_first_try():
    progress = interpret(status(vision=("UPDATING", RAISED)))
    assert progress.failure == "vision: model 'yolo' can't be loaded: Internal: no such file"


def test_a_passing_trouble_of_a_replica_is_waited_for():
    assert interpret(status(vision=("UPDATING", "A replica failed to start: OSError"))).failure is None


def test_an_application_that_can_not_be_deployed_says_why():
    refused = "Traceback\nserve_app.errors.ConfigurationError: invalid configuration: triton: Field required\n"
    assert interpret(status("DEPLOY_FAILED", refused)).failure == "invalid configuration: triton: Field required"
    assert interpret(status("DEPLOY_FAILED", "Traceback\nKeyError: 'x'\n")).failure == "KeyError: 'x'"
    assert interpret(status("DEPLOY_FAILED")).failure == "the application can't be deployed"


def test_processes_of_a_run_are_found_by_its_mark_and_ended():
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", stubborn], env=os.environ | {MARK: "run-of-a-test"})
    other = subprocess.Popen([sys.executable, "-c", stubborn], env=os.environ | {MARK: "another-run"})
    try:
        deadline = time.monotonic() + 10
        while processes_of("run-of-a-test") != [process.pid] and time.monotonic() < deadline:
            time.sleep(0.05)  # its environment is ours until it has become its own program
        assert end_leftovers("run-of-a-test", patience_s=0.2) == 1
        assert process.wait(30) == -9
        assert other.poll() is None
        assert end_leftovers("run-of-a-test", patience_s=0.2) == 0
    finally:
        for one in (process, other):
            one.kill()
            one.wait()


def test_the_command_helps():
    answer = subprocess.run(
        [sys.executable, PROJECT_ROOT / "scripts" / "serve", "--help"], capture_output=True, text=True
    )
    assert answer.returncode == 0
    assert "serve run" in answer.stdout
    assert "configs/serve.yaml" in answer.stdout


def test_the_policies_of_the_committed_configuration_are_found_and_can_be_made():
    (policy,) = policies_of(read_config(PROJECT_ROOT / "configs" / "serve.yaml"))
    assert policy["policy_function"].endswith(":QueueTimePolicy")
    require_policy(policy)


@pytest.mark.parametrize("scaling", [None, "many", {"max_replicas": 2}, {"policy": "default"}])
def test_a_deployment_without_a_policy_has_none_to_check(scaling):
    deployments = [{"name": "vision", "autoscaling_config": scaling}]
    assert policies_of({"applications": [{"deployments": deployments}, {}]}) == []


@pytest.mark.parametrize(
    "more", [{"num_replicas": 2}, {"num_replicas": "auto"}, {"autoscaling_config": {"max_replicas": 2}}]
)
def test_a_second_playground_is_refused(more):
    one, other = {"name": "playground", "num_replicas": 1}, {"name": "router", "num_replicas": 2}
    require_one_playground({"applications": [{"deployments": [other, one]}, {}]})
    with pytest.raises(ConfigurationError, match="the playground has one replica"):
        require_one_playground({"applications": [{"deployments": [other, one | more]}]})
