"""What is checked before the service starts, and the messages of what is refused."""

import socket

import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT, Settings, read_config, read_environment_file, settings_of
from serve_app.telemetry.autoscaling import require_policy
from serve_app.tools.launch.preflight import (
    optional_deployments,
    policies_of,
    ports_of,
    require_free,
    require_gpus,
    require_known_deployments,
    require_one_playground,
)
from serve_app.triton.plans import Gpu

CONFIGS = PROJECT_ROOT / "configs"


def test_a_port_must_be_free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen()
        with pytest.raises(ConfigurationError) as refusal:
            require_free(port, "http_options.port")
    assert refusal.value.message == (
        f"port {port} (http_options.port): address already in use; is the service already running?"
    )
    require_free(port, "http_options.port")


def test_ports_are_those_of_http_and_of_grpc_if_it_is_served():
    assert ports_of({}) == {"http_options.port": 8000}
    served = {"http_options": {"port": 1}, "grpc_options": {"port": 8001, "grpc_servicer_functions": ["f"]}}
    assert ports_of(served) == {"http_options.port": 1, "grpc_options.port": 8001}
    for port in (80000, 0, "abc", None):
        with pytest.raises(ConfigurationError) as refusal:
            ports_of({"http_options": {"port": port}})
        assert refusal.value.message == f"http_options.port must be a port from 1 to 65535, got {port!r}"


def test_deployments_that_need_a_missing_gpu_are_named():
    config = read_config(CONFIGS / "serve.gpu.yaml")
    settings = settings_of(config)
    require_gpus(config, settings, Gpu("NVIDIA L4", (8, 9)))
    with pytest.raises(ConfigurationError) as refusal:
        require_gpus(config, settings, None)
    assert refusal.value.message == (
        "vision, streaming, bulk, baseline, qwen2.5-3b need GPUs (num_gpus), but no NVIDIA GPU is visible; check the "
        "driver and CUDA_VISIBLE_DEVICES"
    )
    on_cpu = read_config(CONFIGS / "serve.yaml")
    require_gpus(on_cpu, settings_of(on_cpu), None)


def test_policies_of_the_configuration_are_found_and_can_be_created():
    (policy,) = policies_of(read_config(CONFIGS / "serve.yaml"))
    assert policy["policy_function"].endswith(":QueueTimePolicy")
    require_policy(policy)
    for scaling in (None, "many", {"max_replicas": 2}, {"policy": "default"}):
        deployments = [{"name": "vision", "autoscaling_config": scaling}]
        assert policies_of({"applications": [{"deployments": deployments}, {}]}) == []


def test_options_of_a_deployment_that_is_not_served_or_that_the_router_hosts_are_refused():
    def check(name, **arguments):
        application = {"import_path": "serve_app.app:build", "deployments": [{"name": "router"}, {"name": name}]}
        require_known_deployments({"applications": [application]}, Settings(**arguments))

    for name in ("vision", "baseline", "llama"):
        check(name, llms=[{"name": "llama"}])
    with pytest.raises(ConfigurationError, match=r"no deployment 'visoin' is served; did you mean 'vision'\?"):
        check("visoin")
    with pytest.raises(ConfigurationError, match="no deployment 'playground' is served; available: baseline, router"):
        check("playground")
    with pytest.raises(ConfigurationError, match=r"remove vision: it runs inside the router \(router.hosts\)"):
        check("vision", router={"hosts": "vision"})
    with pytest.raises(ConfigurationError, match=r"remove llama: it runs inside the router \(router.hosts\)"):
        check("llama", router={"hosts": "llama"}, llms=[{"name": "llama"}])


def test_the_router_has_the_place_of_the_language_model_that_it_hosts():
    placed = {"name": "router", "ray_actor_options": {"num_cpus": 1}}
    config = {"applications": [{"import_path": "serve_app.app:build", "deployments": [placed]}]}
    require_known_deployments(config, Settings(llms=[{"name": "llama"}]))
    with pytest.raises(ConfigurationError, match="remove ray_actor_options of router: it runs where llama does"):
        require_known_deployments(config, Settings(llms=[{"name": "llama"}], router={"hosts": "llama"}))


def test_a_second_replica_of_the_playground_is_refused():
    one, other = {"name": "playground", "num_replicas": 1}, {"name": "router", "num_replicas": 2}
    require_one_playground({"applications": [{"deployments": [other, one]}, {}]})
    for more in ({"num_replicas": 2}, {"num_replicas": "auto"}, {"autoscaling_config": {"max_replicas": 2}}):
        with pytest.raises(ConfigurationError, match="playground must have exactly one replica, which holds its sess"):
            require_one_playground({"applications": [{"deployments": [other, one | more]}]})


def test_the_playground_and_language_models_beside_detection_are_optional():
    models = ({"name": "a"}, {"name": "b"})
    nothing_else = {"triton": (), "baseline": None}
    for settings, optional in (
        ({}, set()),
        ({"llms": models}, {"a", "b"}),
        ({"llms": models, "baseline": None}, {"a", "b"}),
        ({"llms": models, "triton": ()}, {"a", "b"}),
        ({"llms": models, **nothing_else}, set()),
        ({"playground": {}}, {"playground"}),
        ({"playground": {}, "llms": models}, {"playground", "a", "b"}),
        ({"playground": {}, "llms": models, **nothing_else}, {"playground"}),
    ):
        assert optional_deployments(Settings(**settings)) == optional, settings


def test_the_committed_environment_turns_haproxy_on_and_a_wrong_line_is_refused(tmp_path):
    values = read_environment_file(CONFIGS / "ray.env")
    assert values["RAY_SERVE_ENABLE_HA_PROXY"] == values["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert values["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    path = tmp_path / "ray.env"
    path.write_text("# comment\n\nA=1\nnonsense\n")
    with pytest.raises(ConfigurationError, match=r"ray\.env:4: .*'nonsense'"):
        read_environment_file(path)
