"""What each command of `scripts/deploy` does, from its options to its exit status."""

import argparse
import dataclasses
import signal
import sys
from types import FrameType

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy import manifests, ports
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects, label
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.chart import write_chart
from serve_app.tools.deploy.dashboard import with_replicas
from serve_app.tools.deploy.logs import LogOptions, print_logs
from serve_app.tools.deploy.port_forward import Forwarder, Route
from serve_app.tools.deploy.rollout import delete
from serve_app.tools.deploy.rollout.history import History
from serve_app.tools.deploy.rollout.rollout import Rollout, roll_out, show_diff
from serve_app.tools.deploy.rollout.scale import scaled, size_of
from serve_app.tools.deploy.scenarios import files
from serve_app.tools.deploy.scenarios.scenario import Scenario, read_scenario, scenario_names
from serve_app.tools.deploy.status.model import ServiceStatus
from serve_app.tools.deploy.status.problems import problems_of
from serve_app.tools.deploy.status.read import read_status
from serve_app.tools.deploy.status.report import BUSY, TITLE, as_json, report
from serve_app.tools.deploy.status.screen import JsonScreen, new_screen
from serve_app.tools.deploy.status.wait import Pace, watch

DOWN_TIMEOUT_S = 900.0


def scenario_of(options: argparse.Namespace) -> Scenario:
    namespace = [f"namespace={options.namespace}"] if options.namespace else []
    return read_scenario(options.scenario, [*options.set, *namespace])


def target_of(scenario: Scenario) -> Target:
    return Target(scenario.name, scenario.namespace)


def objects_of(options: argparse.Namespace) -> Objects:
    return Objects(connect(options.kubeconfig, options.context))


def render(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    if options.write:
        if options.set or options.namespace:
            raise ConfigurationError("--write updates the committed file: remove --set and --namespace")
        print(f"wrote {files.write(scenario)}")
    elif options.output:
        try:
            options.output.write_text(files.text_of(scenario))
        except OSError as problem:
            raise ConfigurationError(f"{options.output}: {problem.strerror}") from None
        print(f"wrote {options.output}")
    else:
        print(files.text_of(scenario), end="")
    return 0


def chart(options: argparse.Namespace) -> int:
    names = options.scenario or sorted(scenario_names(), key=lambda name: name != files.SMALLEST)
    if options.output == files.CHART and (options.scenario or options.set or options.namespace):
        raise ConfigurationError("kuberay/chart is of all scenarios as they are: add --output FOLDER")
    write_chart(
        options.output, [scenario_of(argparse.Namespace(**vars(options) | {"scenario": name})) for name in names]
    )
    print(f"wrote {options.output}")
    return 0


def _rollout(options: argparse.Namespace, why: str) -> Rollout:
    scenario = scenario_of(options)
    return Rollout(
        scenario,
        tuple(manifests.render(scenario)),
        why,
        strategy=getattr(options, "strategy", None),
        force=options.force_conflicts,
        wait=not getattr(options, "no_wait", False),
        must_exist=why != "up",
    )


def _roll_out(options: argparse.Namespace, objects: Objects, rollout: Rollout) -> int:
    pace = Pace(options.timeout or rollout.timeout_s, options.every, options.settle)
    return roll_out(objects, rollout, new_screen(), pace)


def diff(options: argparse.Namespace) -> int:
    return show_diff(objects_of(options), _rollout(options, "up"), new_screen())


def up(options: argparse.Namespace) -> int:
    rollout = _rollout(options, "up")
    return _roll_out(options, objects_of(options), rollout)


def upgrade(options: argparse.Namespace) -> int:
    rollout = _rollout(options, "upgrade")
    return _roll_out(options, objects_of(options), rollout)


def rollback(options: argparse.Namespace) -> int:
    rollout, objects = _rollout(options, "rollback"), objects_of(options)
    revision = History(objects, rollout.target).find(options.to)
    doubt = "" if revision.served else "; it was never seen serving"
    screen = new_screen()
    screen.say(f"rolling back to revision {revision.number}: {revision.scenario}, {revision.why}, {revision.at}{doubt}")
    rollout = dataclasses.replace(
        rollout, manifests=revision.manifests, why=f"rollback to {revision.number}", returns_to=revision.number
    )
    return _roll_out(options, objects, rollout)


def scale(options: argparse.Namespace) -> int:
    """What was applied last, with other numbers: no other change of the scenario comes with them."""
    sizes = [size_of(text) for text in options.sizes]
    rollout, objects = _rollout(options, f"scale {' '.join(options.sizes)}"), objects_of(options)
    revision = History(objects, rollout.target).latest()
    changed = tuple(scaled(one, sizes) if one["kind"] == "RayService" else one for one in revision.manifests)
    code = _roll_out(options, objects, dataclasses.replace(rollout, manifests=changed))
    if code == 0:
        print(f"to keep these numbers set them in {options.scenario} too: the next `up` brings its own back")
    return code


def history(options: argparse.Namespace) -> int:
    target = target_of(scenario_of(options))
    revisions = History(objects_of(options), target).revisions()
    if not revisions:
        print(f"{target} has no revisions yet")
    for one in revisions:
        print(f"{one.number:>4}  {one.at}  {one.state:<7}  {one.scenario}  {one.why}")
    return 0


def status(options: argparse.Namespace) -> int:
    target, objects = target_of(scenario_of(options)), objects_of(options)
    screen = JsonScreen() if options.json else new_screen()

    def read() -> ServiceStatus:
        return with_replicas(objects, read_status(objects, target))

    if options.watch:
        watch(read, screen, options.every)
    seen = read()
    if options.json:
        print(as_json(seen))
    else:
        screen.show(report(seen, () if seen.up_to_date else problems_of(seen)))
    return 0 if seen.serving else 1


def logs(options: argparse.Namespace) -> int:
    wanted = LogOptions(
        options.group, options.container, options.deployment, options.follow, options.previous, options.tail
    )
    return print_logs(objects_of(options), target_of(scenario_of(options)), wanted)


def port_forward(options: argparse.Namespace) -> int:
    target, objects = target_of(scenario_of(options)), objects_of(options)
    if not read_status(objects, target).serving:
        print(f"note: {target} isn't serving yet; connections wait until it is", file=sys.stderr)

    def say(text: str) -> None:
        print(text, flush=True)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # in the background of a script SIGINT is ignored by default
        signal.signal(number, interrupt)
    routes = [
        Route("http", options.http, ports.HTTP),
        Route("grpc", options.grpc, ports.GRPC),
        Route("dashboard", options.dashboard, ports.DASHBOARD),
    ]
    try:
        Forwarder(objects, target, say, options.address).serve(routes)
    except KeyboardInterrupt:
        print("stopped")
    return 0


def down(options: argparse.Namespace) -> int:
    scenario, objects, screen = scenario_of(options), objects_of(options), new_screen()
    target = target_of(scenario)
    found = delete.find_applied(objects, target, manifests.render(scenario), options.keep_namespace)
    found = delete.without_kept_namespaces(objects, target, found, screen)
    delete.require_rights(objects, found)
    for one in found:
        screen.say(f"to delete: {label(one)}")
    if found and not (options.yes or delete.confirm(found, target)):
        screen.say("nothing was deleted")
        return 1
    pace = Pace(options.timeout or DOWN_TIMEOUT_S, options.every)
    code = delete.delete_service(objects, target, found, screen, pace)
    if remaining := delete.remaining_costs(objects, target):
        screen.say("remaining:", TITLE)
        for one_left in remaining:
            screen.say(f"  {one_left}", BUSY)
    screen.say("the cluster, the model bucket and the images also cost money: scripts/cleanup deletes them", BUSY)
    return code
