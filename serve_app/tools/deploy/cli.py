"""The command line of `scripts/deploy`: its commands, options and exit statuses."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from serve_app.errors import ServeAppError
from serve_app.tools.deploy import commands, ports
from serve_app.tools.deploy.scenarios import files

EXIT_STATUS = """exit status:
  0    success; status: the service is serving; diff: no differences
  1    the service isn't serving, diff found differences, or the timeout expired
  2    error: invalid input, unreachable cluster, missing permissions
  130  interrupted"""

Subparsers = argparse._SubParsersAction  # argparse has no public name for it


def main(description: str, arguments: list[str] | None = None) -> None:
    options = build_parser(description).parse_args(arguments, argparse.Namespace(changes=False))
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        sys.exit(run(options))
    except ServeAppError as problem:
        sys.stdout.flush()
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if options.changes:
            print("\ninterrupted; the cluster keeps working, run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def build_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, epilog=EXIT_STATUS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_render_and_diff(subparsers)
    _add_rollouts(subparsers)
    _add_down(subparsers)
    _add_status_and_history(subparsers)
    _add_logs_and_port_forward(subparsers)
    return parser


def _add(
    subparsers: "Subparsers[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    cluster: bool = True,
    several: bool = False,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=text,
        description=text,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "scenario",
        nargs="*" if several else None,
        metavar="SCENARIO",
        help="a name in kuberay/scenarios, or the path of a file",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a scenario key")
    parser.add_argument("--namespace", help="override the scenario's namespace")
    if cluster:
        parser.add_argument("--context", help="kubeconfig context; default: the current one")
        parser.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, else ~/.kube/config")
    return parser


def _add_render_and_diff(subparsers: "Subparsers[argparse.ArgumentParser]") -> None:
    render = _add(subparsers, "render", commands.render, "print the scenario's manifests", cluster=False)
    output = render.add_mutually_exclusive_group()
    output.add_argument("--output", type=Path, metavar="FILE", help="write to FILE")
    output.add_argument("--write", action="store_true", help="update the committed kuberay/manifests/SCENARIO")
    text = "write a Helm chart of scenarios, all by default; the first one's values are its own"
    chart = _add(subparsers, "chart", commands.chart, text, cluster=False, several=True)
    chart.add_argument("--output", type=Path, default=files.CHART, metavar="FOLDER", help="default: kuberay/chart")
    diff = _add(subparsers, "diff", commands.diff, "show what up would change (server-side dry run)")
    diff.add_argument("--force-conflicts", action="store_true", help="show what up --force-conflicts would change")


def _add_rollouts(subparsers: "Subparsers[argparse.ArgumentParser]") -> None:
    up = _add(subparsers, "up", commands.up, "create or update the service, and wait until it is serving")
    upgrade = _add(subparsers, "upgrade", commands.upgrade, "update a running service, in place or in a new cluster")
    upgrade.add_argument(
        "--strategy",
        choices=("in-place", "new-cluster", "staged"),
        help="default: what the change requires; printed first. staged: the new cluster first, which starts with the "
        "configuration of now, then the new configuration in it",
    )
    rollback = _add(subparsers, "rollback", commands.rollback, "apply an earlier revision again")
    rollback.add_argument("--to", type=int, metavar="N", help="a revision from `history`; default: the previous one")
    scale = _add(subparsers, "scale", commands.scale, "change numbers of replicas and of pods, and nothing else")
    scale.add_argument(
        "sizes",
        nargs="+",
        metavar="NAME=LEAST..MOST",
        help="a Serve deployment, a group of workers, or both if both have that name; NAME=NUMBER: exactly so many",
    )
    for parser in (up, upgrade, rollback, scale):
        parser.add_argument("--no-wait", action="store_true", help="apply and return")
        parser.add_argument("--force-conflicts", action="store_true", help="overwrite fields owned by other managers")
        _add_pace(parser, "the scenario's startup, deletion and drain times together")
        parser.add_argument(
            "--settle",
            type=_seconds,
            default=6.0,
            metavar="SECONDS",
            help="how long the service must stay ready before the wait ends; default: 6",
        )
        parser.set_defaults(changes=True)


def _add_down(subparsers: "Subparsers[argparse.ArgumentParser]") -> None:
    down = _add(subparsers, "down", commands.down, "delete the service, and list what remains and costs money")
    down.add_argument("--yes", action="store_true", help="don't ask for confirmation")
    down.add_argument("--keep-namespace", action="store_true", help="keep the namespace")
    _add_pace(down, "900")
    down.set_defaults(changes=True)


def _add_status_and_history(subparsers: "Subparsers[argparse.ArgumentParser]") -> None:
    status = _add(subparsers, "status", commands.status, "show the service's state, and why it isn't serving")
    status.add_argument("--watch", action="store_true", help="keep watching until interrupted")
    status.add_argument("--json", action="store_true", help="print JSON; with --watch, one line per change")
    _add_every(status)
    _add(subparsers, "history", commands.history, "list the revisions that were applied")


def _add_logs_and_port_forward(subparsers: "Subparsers[argparse.ArgumentParser]") -> None:
    logs = _add(subparsers, "logs", commands.logs, "print logs of the service's pods, or of Serve replicas")
    logs.add_argument("--group", help="pods of one group: head, or a worker group")
    logs.add_argument("--container", help="one container or init container; default: all containers")
    logs.add_argument("--deployment", help="replicas of one Serve deployment, through Ray's dashboard")
    logs.add_argument("--follow", action="store_true", help="keep printing new lines")
    logs.add_argument("--previous", action="store_true", help="logs of the previous container run")
    logs.add_argument("--tail", type=int, default=100, metavar="LINES", help="lines of each log; default: 100")
    forward = _add(subparsers, "port-forward", commands.port_forward, "forward local ports to the service's pods")
    for title, port in (("http", ports.HTTP), ("grpc", ports.GRPC), ("dashboard", ports.DASHBOARD)):
        forward.add_argument(
            f"--{title}", type=_port, default=port, metavar="PORT", help=f"default: {port}; 0: any free port"
        )
    forward.add_argument("--address", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")


def _add_pace(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=f"how long to wait; default: {default}")
    _add_every(parser)


def _add_every(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="polling interval; default: 2")


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, got {text}")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {value}")
    return value
