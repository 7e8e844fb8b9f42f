"""`scripts/bench scale`: how much faster a service with more replicas is.

Engines that share processors gain nothing by being more, so a model that waits takes their place.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, list_of, number
from serve_app.tools.bench.baselines.processes import exit_on_signals
from serve_app.tools.bench.baselines.service import PACED, Config, add_model, router_of, serve_no_pictures, service
from serve_app.tools.bench.connection import build_post
from serve_app.tools.bench.load import Load, run_http_load
from serve_app.tools.bench.report import machine_line, open_console, print_table, write_json

ONE_HOP, SPLIT = "in routers", "behind a router"


@dataclass(frozen=True, slots=True)
class Step:
    where: str
    replicas: int
    per_s: float
    p99_ms: float
    problems: Sequence[str]


def serve_paced(config: Config, replicas: int, where: str) -> None:
    """So many replicas of a model that takes one request at a time, in the routers or behind one of them."""
    serve_no_pictures(config)
    (application,) = config["applications"]
    application["args"] |= {"llms": [], "triton": []}
    add_model(config, dict(PACED))
    deployments = {one["name"]: one for one in application["deployments"]}
    router = deployments.setdefault("router", {"name": "router"})
    router.pop("autoscaling_config", None)
    router["ray_actor_options"] = PACED["ray_actor_options"]  # four must have room on one machine
    if where == ONE_HOP:
        deployments.pop("paced")
        router_of(application)["hosts"] = "paced"
    router["num_replicas"] = replicas if where == ONE_HOP else 1
    deployments.get("paced", {})["num_replicas"] = replicas
    application["deployments"] = list(deployments.values())


def measure(options: argparse.Namespace, replicas: int, where: str) -> Step:
    tensor = {"name": "SECONDS", "datatype": "FP32", "shape": [1, 1], "data": [options.work_ms / 1e3]}
    load = Load(options.clients * replicas, options.duration)
    with service(options.config, "service-scale", lambda config: serve_paced(config, replicas, where)) as running:
        request = build_post(running.url, "/v2/models/paced/infer", json.dumps({"inputs": [tensor]}).encode())
        result = run_http_load(running.url, [request], load)
    return Step(where, replicas, result.throughput, result.percentiles_ms.get("p99", 0.0), result.problems)


def measure_all(options: argparse.Namespace, console: Console) -> list[Step]:
    plan = [(replicas, where) for where in (ONE_HOP, SPLIT) for replicas in options.replicas]
    steps: list[Step] = []
    with console.status("") as status:
        for replicas, where in plan:
            status.update(f"{replicas} replicas {where} ({len(steps) + 1} of {len(plan)})")
            steps.append(measure(options, replicas, where))
    return steps


def show(steps: Sequence[Step], work_ms: float, console: Console) -> None:
    """The share of what so many replicas could do if nothing but the model took time."""
    rows = [
        (one.where, str(one.replicas), f"{one.per_s:.1f}", f"{one.per_s * work_ms / 1e3 / one.replicas:.2f}",
         f"{one.p99_ms:.0f}") for one in steps
    ]  # fmt: skip
    print_table(console, ("model", "replicas", "requests/s", "of the ideal", "p99 ms"), rows)
    for one in steps:
        for problem in one.problems:
            console.print(f"{one.replicas} {one.where}: {problem}")
    console.print(f"{machine_line()}; {work_ms:g} ms for each request, one at a time in a replica")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="bench scale", description=__doc__, formatter_class=Defaults)
    add = parser.add_argument
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.yaml", help="of the service, on free ports")
    add("--replicas", type=list_of(number(int, 1)), default=[1, 2, 4], metavar="N,…", help="how many, in turn")
    add("--work-ms", type=number(float, 1), default=20.0, metavar="MS", help="what the model takes for a request")
    add("--clients", type=number(int, 1), default=4, metavar="N", help="clients at once, for each replica")
    add("--duration", type=number(float, 1), default=10.0, metavar="S", help="seconds of each measurement")
    add("--json", type=Path, metavar="FILE", help="write the numbers and the machine as JSON")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    console = open_console()
    steps = measure_all(options, console)
    show(steps, options.work_ms, console)
    if options.json:
        write_json(options.json, "bench", work_ms=options.work_ms, steps=[asdict(one) for one in steps])
    return FAILED if any(one.problems for one in steps) else 0


def main(arguments: list[str] | None) -> None:
    exit_on_signals()
    end_with(run, parse(arguments))
