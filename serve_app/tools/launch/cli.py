"""The command lines of `scripts/serve` and `scripts/monitor`."""

import argparse
import os
import signal
import sys
from pathlib import Path

from serve_app.errors import ServeAppError

# A new Ray takes loopback for its node's address, on Linux too, and Serve's proxy listens there as replicas do, so that
# HAProxy alone listens to other machines.
ONE_MACHINE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.telemetry.listeners:listen_where_ray_does",
}


def serve(description: str, arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "config",
        nargs="?",
        type=Path,
        default=Path("configs/serve.yaml"),
        help="the application's configuration; default: %(default)s",
    )
    parser.add_argument(
        "--env",
        type=Path,
        default=Path("configs/ray.env"),
        help="environment variables for Ray's processes, KEY=VALUE lines; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    enable_interrupts()
    try:
        sys.exit(run_service(options.config, options.env))
    except ServeAppError as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def run_service(path: Path, environment_path: Path) -> int:
    # Imported here, because they take seconds in which --help and Ctrl-C would have no effect.
    from serve_app.settings import read_environment_file
    from serve_app.tools.launch.preflight import check_config, optional_deployments, ports_of, require_gpus
    from serve_app.tools.launch.run import Run
    from serve_app.triton.plans import find_gpu

    config, settings = check_config(path)
    environment = read_environment_file(environment_path) | dict(os.environ)
    # A cluster of its own: `serve run` shuts Serve down when it ends, which would end others' applications elsewhere.
    environment.setdefault("RAY_ADDRESS", "local")
    if environment["RAY_ADDRESS"] == "local":
        require_gpus(config, settings, find_gpu())
        environment = ONE_MACHINE | environment
    bin_folder = os.path.dirname(sys.executable)
    environment["PATH"] = f"{bin_folder}:{environment.get('PATH', '')}"
    environment.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", os.path.join(bin_folder, "serve-app-haproxy"))
    ports = ports_of(config)
    addresses = f"http://localhost:{ports['http_options.port']}"
    if "grpc_options.port" in ports:
        addresses += f", gRPC at localhost:{ports['grpc_options.port']}"
    command = [os.path.join(bin_folder, "serve"), "run", str(path)]
    return Run(command, environment, addresses, optional_deployments(settings)).wait()


def monitor(description: str, arguments: list[str] | None = None) -> None:
    from serve_app.settings import PROJECT_ROOT
    from serve_app.tools.launch.monitor import MONITORING, Monitor

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=9090, help="Prometheus' port on localhost; default: %(default)s")
    parser.add_argument(
        "--config",
        type=Path,
        default=MONITORING / "prometheus.yaml",
        help="Prometheus' configuration; default: %(default)s",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=PROJECT_ROOT / "runs" / "prometheus",
        help="folder of the measured data; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    try:
        sys.exit(Monitor(options.port, options.config, options.data).wait())
    except ServeAppError as problem:
        sys.exit(f"error: {problem}")


def enable_interrupts() -> None:
    """React to SIGINT even if it was ignored at the start, as for a background command of a shell script."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
