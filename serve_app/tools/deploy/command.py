"""The command line of `scripts/deploy`: what can be asked for, and what its exit status says."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from serve_app.errors import ServeAppError
from serve_app.tools.deploy import commands, ports

STATUS = """exit status:
  0    done; status: it serves; diff: nothing differs
  1    not so: it doesn't serve, something differs, the time was over
  2    it can't be done: bad input, no cluster, no rights
  130  interrupted"""


def main(description: str, arguments: list[str] | None = None) -> None:
    options = parser_of(description).parse_args(arguments, argparse.Namespace(changes=False))
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
            print("\ninterrupted; what was begun goes on in the cluster, the same command takes it up", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def parser_of(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, epilog=STATUS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    below = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_offline(below)
    _add_changing(below)
    _add_looking(below)
    return parser


Commands = argparse._SubParsersAction  # there is no public name


def _add(
    below: "Commands[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    cluster: bool = True,
) -> argparse.ArgumentParser:
    one = below.add_parser(name, help=text, description=text, epilog=STATUS, formatter_class=RawEnd)
    one.set_defaults(run=run)
    one.add_argument("scenario", metavar="SCENARIO", help="a name in kuberay/scenarios, or a file like them")
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value for a key of it")
    one.add_argument("--namespace", help="another namespace than the scenario's")
    if cluster:
        one.add_argument("--context", help="of the kubeconfig; default: its current one")
        one.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, else ~/.kube/config")
    return one


class RawEnd(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help  # the defaults that matter are in the texts


def _add_pace(one: argparse.ArgumentParser, patience: str) -> None:
    one.add_argument("--timeout", type=_seconds, metavar="SECONDS", help=f"how long to wait; default: {patience}")
    one.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="how often to look; default: 2")


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is no port: 0 to 65535")
    return value


def _add_offline(below: "Commands[argparse.ArgumentParser]") -> None:
    one = _add(below, "render", commands.render_manifests, "print a scenario's manifests", cluster=False)
    where = one.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="FILE", help="into a file")
    where.add_argument("--write", action="store_true", help="into kuberay/rayservice.SCENARIO.yaml, which is committed")


def _add_changing(below: "Commands[argparse.ArgumentParser]") -> None:
    one = _add(below, "diff", commands.diff, "show what up would change (server-side dry run)")
    one.add_argument("--force-conflicts", action="store_true", help="as up would with it")
    up = _add(
        below, "up", commands.up, "bring the service up, or to what the scenario says now, and wait until it serves"
    )
    upgrade = _add(below, "upgrade", commands.upgrade, "change a service that is up, in place or by a new cluster")
    choices = ("in-place", "new-cluster")
    upgrade.add_argument("--strategy", choices=choices, help="default: what the change needs, which is said before")
    rollback = _add(below, "rollback", commands.rollback, "return to what was applied before")
    rollback.add_argument("--to", type=int, metavar="N", help="a revision of `history`; default: the one before")
    for each in (up, upgrade, rollback):
        each.add_argument("--no-wait", action="store_true", help="only apply")
        each.add_argument("--force-conflicts", action="store_true", help="take over fields that others have set")
        _add_pace(each, "what the scenario gives a cluster to start and an old one to end")
        each.add_argument(
            "--settle",
            type=_seconds,
            default=6.0,
            metavar="SECONDS",
            help="how long it must be seen to serve, as KubeRay tells of a change some seconds late; default: 6",
        )
        each.set_defaults(changes=True)
    down = _add(below, "down", commands.down, "delete the service, in order, and say what remains and costs money")
    down.add_argument("--yes", action="store_true", help="don't ask")
    down.add_argument("--keep-namespace", action="store_true", help="with whatever else is in it")
    _add_pace(down, "900")
    down.set_defaults(changes=True)


def _add_looking(below: "Commands[argparse.ArgumentParser]") -> None:
    status = _add(below, "status", commands.status, "show what the service does, and why it doesn't serve")
    status.add_argument("--watch", action="store_true", help="until it is interrupted")
    status.add_argument("--json", action="store_true", help="for programs; with --watch a line for each change")
    status.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="how often to look; default: 2")
    _add(below, "history", commands.history, "list what was applied before")
    logs = _add(below, "logs", commands.logs, "print logs of the service's pods, or of Serve's replicas")
    logs.add_argument("--group", help="pods of one group: head, or a worker group's name")
    logs.add_argument("--container", help="one container, init containers too; default: all but those")
    logs.add_argument("--deployment", help="the replicas of one deployment of Serve, through Ray's dashboard")
    logs.add_argument("--follow", action="store_true", help="go on as lines come")
    logs.add_argument("--previous", action="store_true", help="of the run before a restart")
    logs.add_argument("--tail", type=int, default=100, metavar="LINES", help="of each log; default: 100")
    forward = _add(below, "port-forward", commands.port_forward, "lead local ports to the service's pods, until Ctrl-C")
    for title, port in (("http", ports.HTTP), ("grpc", ports.GRPC), ("dashboard", ports.DASHBOARD)):
        forward.add_argument(
            f"--{title}", type=_port, default=port, metavar="PORT", help=f"default: {port}; 0: any free one"
        )
    forward.add_argument("--address", default="127.0.0.1", help="to listen at; default: 127.0.0.1")
