"""`scripts/bench cpu`: the processor time that a request costs in each process, with what an idle service takes off."""

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from serve_app.clients.pictures import read_pictures
from serve_app.errors import UnavailableError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.arguments import Defaults, Parser, end_with, number
from serve_app.tools.bench.baselines import bare_serve
from serve_app.tools.bench.baselines.processes import exit_on_signals, log_of
from serve_app.tools.bench.baselines.service import (
    Change,
    Config,
    RunningService,
    add_bare_serve,
    give_pictures_a_deployment,
    is_up,
    service,
)
from serve_app.tools.bench.load import Load
from serve_app.tools.bench.ratio.rounds import Measurement
from serve_app.tools.bench.ratio.sides import Setup, measure_completions, measure_pictures
from serve_app.tools.bench.report import machine_line, open_console, print_table, write_json

SETTLE_S = 10.0  # until what a start leaves behind is done
# By the first part of a command line that fits. Engines are what every server has; the rest is the cost of serving.
ENGINES = {"engine of pictures": "triton_python_backend_stub", "engine of tokens": "VLLM::"}
REPLICA = re.compile(r"ray::ServeReplica:(?:serve_app:)?([\w.-]+)")
OTHERS = {
    "HAProxy": "haproxy", "Serve's controller": "ray::ServeController", "HAProxy's manager": "ray::HAProxyManager",
    "dashboard": "ashboard", "GCS": "gcs_server", "raylet": "raylet",
}  # fmt: skip


def group_of(command: str) -> str:
    """What a process is, by its command line."""
    if replica := REPLICA.match(command):
        return replica[1]
    return next((name for name, part in (ENGINES | OTHERS).items() if part in command), "other")


def seconds_by_group(processes: Iterable[psutil.Process]) -> Counter[str]:
    """Processor time since each process began."""
    found: Counter[str] = Counter()
    for process in processes:
        try:
            times = process.cpu_times()
            found[group_of(" ".join(process.cmdline()))] += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return found


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time of each group, over so many seconds, and what was done in them."""

    seconds: Counter[str]
    wall_s: float
    count: float = 0.0

    def share(self, group: str) -> float:
        """Of one core."""
        return self.seconds[group] / self.wall_s

    def ms_each(self, group: str, idle: "Spent") -> float:
        """Without what the group takes when there is nothing to do."""
        return max(0.0, 1e3 * (self.seconds[group] - idle.share(group) * self.wall_s) / self.count)


def spend(pid: int, work: Callable[[], float]) -> Spent:
    """`work` returns how much it does in a second; what is still in flight at its end was begun within it."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    before, began = seconds_by_group(processes), time.monotonic()
    rate = work()
    after, ended = seconds_by_group(processes), time.monotonic()
    return Spent(
        Counter({group: after[group] - before[group] for group in after}), ended - began, rate * (ended - began)
    )


def rest(seconds: float) -> float:
    time.sleep(seconds)
    return 0.0


def rate_of(measured: Measurement, number: str) -> float:
    if measured.failed:
        raise UnavailableError(f"{measured.failed} requests failed: {'; '.join(measured.remarks)}")
    return measured.numbers[number]


def measure(running: RunningService, options: argparse.Namespace, console: Console) -> dict[str, Spent]:
    load = Load(options.clients, options.duration, 0.0)
    with ExitStack() as nothing, console.status("") as status:
        setup = Setup(options.config, running.url, running.pid, options.pictures, load, 0, nothing)
        track, model, pictures = setup.track("D3"), setup.language_model.name, read_pictures(options.pictures)
        works: dict[str, Callable[[], float]] = {
            "D3": lambda: rate_of(measure_pictures(running.url, track.path, pictures, load), "images/s"),
            "bare request": lambda: rate_of(measure_pictures(running.url, bare_serve.PATH, pictures, load), "images/s"),
            "token": lambda: rate_of(measure_completions(running.url, model, load), "tokens/s"),
        }
        for name, work in works.items():
            status.update(f"warming up: {name}")
            work()
        status.update("idle")
        time.sleep(SETTLE_S)
        spent = {"idle": spend(running.pid, lambda: rest(options.duration))}
        for name, work in works.items():
            status.update(name)
            spent[name] = spend(running.pid, work)
    return spent


def beside_engines(spent: Spent, idle: Spent) -> float:
    return sum(spent.ms_each(group, idle) for group in spent.seconds if group not in ENGINES)


def show(spent: dict[str, Spent], console: Console) -> None:
    idle, *works = spent.values()
    groups = sorted(
        {group for one in spent.values() for group in one.seconds}, key=lambda name: -works[0].seconds[name]
    )
    rows = [
        (group, f"{idle.share(group):.1%}", *(f"{work.ms_each(group, idle):.3f}" for work in works)) for group in groups
    ]
    rows.append(("all but engines", f"{sum(map(idle.share, groups)):.1%}",
                 *(f"{beside_engines(work, idle):.3f}" for work in works)))  # fmt: skip
    print_table(console, ("", "idle, of a core", *(f"ms for each {name}" for name in list(spent)[1:])), rows)
    console.print(f"{machine_line()}; " + ", ".join(f"{work.count / work.wall_s:.1f} {name}/s"
                  for name, work in list(spent.items())[1:]))  # fmt: skip


def change_for(split: bool) -> Change:
    """What sends each form back at once stands beside the service: the floor of a request for pictures."""

    def change(config: Config) -> None:
        if split:
            give_pictures_a_deployment(config)
        add_bare_serve(config)

    return change


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="bench cpu", description=__doc__, formatter_class=Defaults)
    add = parser.add_argument
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.yaml", help="of the service, on free ports")
    add("--split", action="store_true", help="pictures in a deployment of their own, so that a request takes two hops")
    add("--clients", type=number(int, 1), default=16, metavar="N", help="clients at once")
    add("--duration", type=number(float, 1), default=20.0, metavar="S", help="seconds of each measurement")
    add("--pictures", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="a picture, or a folder of them")
    add("--json", type=Path, metavar="FILE", help="write the numbers and the machine as JSON")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    console = open_console()
    console.print("starting the service")
    with service(
        options.config, "service-cpu", change_for(options.split), lambda _: is_up(log_of("service-cpu"), lines=2)
    ) as running:
        spent = measure(running, options, console)
    show(spent, console)
    if options.json:
        idle = spent["idle"]
        rows = {
            name: {g: round(one.ms_each(g, idle), 4) for g in one.seconds} for name, one in spent.items() if one.count
        }
        shares = {group: round(idle.share(group), 4) for group in idle.seconds}
        write_json(options.json, "bench", idle=shares, ms=rows)
    return 0


def main(arguments: list[str] | None) -> None:
    exit_on_signals()
    end_with(run, parse(arguments))
