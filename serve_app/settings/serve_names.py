"""The names of Ray Serve's own settings in a configuration file: Serve ignores one that is misspelled."""

# Written down, because importing Ray Serve takes a second of every command; a test compares them with Serve's schemas.

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.errors import ConfigurationError, near_miss

NAMES: Mapping[str, str] = {
    "": "proxy_location http_options grpc_options controller_options logging_config tracing_config applications "
    "target_capacity",
    "http_options": "host port root_path request_timeout_s keep_alive_timeout_s ssl_keyfile ssl_certfile "
    "ssl_keyfile_password ssl_ca_certs",
    "grpc_options": "port grpc_servicer_functions request_timeout_s enable_reflection",
    "applications": "name route_prefix import_path runtime_env host port deployments autoscaling_policy args "
    "logging_config external_scaler_enabled",
    "deployments": "name num_replicas max_ongoing_requests max_queued_requests backpressure_config user_config "
    "autoscaling_config graceful_shutdown_wait_loop_s graceful_shutdown_timeout_s health_check_period_s "
    "health_check_timeout_s ray_actor_options placement_group_bundles placement_group_strategy "
    "placement_group_bundle_label_selector max_replicas_per_node logging_config request_router_config "
    "gang_scheduling_config deployment_actors rolling_update_percentage max_surge_percent",
    "autoscaling_config": "min_replicas initial_replicas max_replicas target_ongoing_requests metrics_interval_s "
    "look_back_period_s smoothing_factor upscale_smoothing_factor downscale_smoothing_factor upscaling_factor "
    "downscaling_factor downscale_delay_s downscale_to_zero_delay_s upscale_delay_s aggregation_function policy",
    "ray_actor_options": "runtime_env num_cpus num_gpus memory resources accelerator_type label_selector "
    "fallback_strategy",
}


def require_known_names(config: Mapping[str, Any]) -> None:
    for place, section in _sections(config, ""):
        kind = place.rpartition(".")[2].partition("[")[0]
        known = NAMES[kind].split()
        for name in section:
            if name not in known:
                where = f"{place}.{name}".lstrip(".")
                raise ConfigurationError(f"{where}: Ray Serve has no such setting{near_miss(str(name), known)}")


def _sections(section: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each section whose names are known, with its place in the file."""
    yield place, section
    for name, value in section.items():
        if name not in NAMES:
            continue
        inner = f"{place}.{name}".lstrip(".")
        parts = [(inner, value)] if isinstance(value, dict) else []
        if isinstance(value, list):
            parts = [(f"{inner}[{number}]", one) for number, one in enumerate(value) if isinstance(one, dict)]
        for at, part in parts:
            yield from _sections(part, at)
