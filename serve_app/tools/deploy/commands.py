"""What each command of `scripts/deploy` does, from its options to its exit status."""

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.deploy import manifests, ports
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects, label
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.changing import deploying, removing
from serve_app.tools.deploy.changing.history import History
from serve_app.tools.deploy.looking.dashboard import with_replicas
from serve_app.tools.deploy.looking.explaining import reasons_of
from serve_app.tools.deploy.looking.forwarding import Forwarder, Route
from serve_app.tools.deploy.looking.logs import Wish, show_logs
from serve_app.tools.deploy.looking.observation import Observation
from serve_app.tools.deploy.looking.observing import observe
from serve_app.tools.deploy.looking.screen import new_screen
from serve_app.tools.deploy.looking.telling import BUSY, TITLE, report
from serve_app.tools.deploy.looking.waiting import Pace
from serve_app.tools.deploy.scenarios import files
from serve_app.tools.deploy.scenarios.scenario import Scenario, read_scenario

DOWN_S = 900.0


def scenario_of(options: argparse.Namespace) -> Scenario:
    namespace = [f"namespace={options.namespace}"] if options.namespace else []
    return read_scenario(options.scenario, [*options.set, *namespace])


def target_of(scenario: Scenario) -> Target:
    return Target(scenario.name, scenario.namespace)


def objects_of(options: argparse.Namespace) -> Objects:
    return Objects(connect(options.kubeconfig, options.context))


def render_manifests(options: argparse.Namespace) -> int:
    scenario = scenario_of(options)
    if options.write:
        if options.set or options.namespace:
            raise ConfigurationError(
                "--write: the committed file is the scenario as it is; leave --set and --namespace out"
            )
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


def _job(options: argparse.Namespace, why: str) -> deploying.Job:
    scenario = scenario_of(options)
    return deploying.Job(
        scenario,
        tuple(manifests.render(scenario)),
        why,
        strategy=getattr(options, "strategy", None),
        force=options.force_conflicts,
        follow=not getattr(options, "no_wait", False),
        must_exist=why != "up",
    )


def _deploy(options: argparse.Namespace, objects: Objects, job: deploying.Job) -> int:
    pace = Pace(options.timeout or job.patience_s, options.every, options.settle)
    return deploying.deploy(objects, job, new_screen(), pace)


def diff(options: argparse.Namespace) -> int:
    return deploying.compare(objects_of(options), _job(options, "up"), new_screen())


def up(options: argparse.Namespace) -> int:
    job = _job(options, "up")
    return _deploy(options, objects_of(options), job)


def upgrade(options: argparse.Namespace) -> int:
    job = _job(options, "upgrade")
    return _deploy(options, objects_of(options), job)


def rollback(options: argparse.Namespace) -> int:
    job, objects = _job(options, "rollback"), objects_of(options)
    revision = History(objects, job.target).to_return_to(options.to)
    doubt = "" if revision.served else ", which wasn't seen to serve"
    what = f"{revision.scenario}, {revision.why} of {revision.at}"
    new_screen().say(f"to revision {revision.number}: {what}{doubt}", TITLE)
    job = dataclasses.replace(
        job, manifests=revision.manifests, why=f"rollback to {revision.number}", returns_to=revision.number
    )
    return _deploy(options, objects, job)


def history(options: argparse.Namespace) -> int:
    target = target_of(scenario_of(options))
    revisions = History(objects_of(options), target).revisions()
    if not revisions:
        print(f"nothing was applied to {target} yet")
    for one in revisions:
        print(f"{one.number:>4}  {one.at}  {one.state:<7}  {one.scenario}  {one.why}")
    return 0


def status(options: argparse.Namespace) -> int:
    target, objects, screen = target_of(scenario_of(options)), objects_of(options), new_screen()
    if not options.watch:
        seen = with_replicas(objects, observe(objects, target))
        if options.json:
            print(as_json(seen))
        else:
            screen.show(report(seen, () if seen.done else reasons_of(seen)))
        return 0 if seen.serving else 1
    with screen:
        show = new_lines() if options.json else lambda seen: screen.update(seen, () if seen.done else reasons_of(seen))
        return watch(lambda: with_replicas(objects, observe(objects, target)), show, options.every)


def new_lines() -> Callable[[Observation], None]:
    """Prints each that differs from the one before."""
    before = ""

    def show(seen: Observation) -> None:
        nonlocal before
        if (line := as_json(seen)) != before:
            before = line
            print(line, flush=True)

    return show


def watch(look: Callable[[], Observation], show: Callable[[Observation], None], every_s: float) -> NoReturn:
    """The API may be away for a while once it was there."""
    show(look())
    away = False
    while True:
        time.sleep(every_s)
        try:
            show(look())
            away = False
        except UnavailableError as problem:
            if not away:
                print(f"{problem}; trying again", file=sys.stderr, flush=True)
            away = True


def as_json(seen: Observation) -> str:
    found = dataclasses.asdict(seen)
    found |= {"serving": seen.serving, "done": seen.done, "reasons": [str(one) for one in reasons_of(seen)]}
    return json.dumps(found)


def logs(options: argparse.Namespace) -> int:
    wish = Wish(options.group, options.container, options.deployment, options.follow, options.previous, options.tail)
    return show_logs(objects_of(options), target_of(scenario_of(options)), wish)


def port_forward(options: argparse.Namespace) -> int:
    target, objects = target_of(scenario_of(options)), objects_of(options)
    seen = observe(objects, target)
    if not seen.serving:
        print(f"note: {target} doesn't serve yet; connections wait for it", file=sys.stderr)

    def say(text: str) -> None:
        print(text, flush=True)

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job would ignore the first
        signal.signal(number, end)
    routes = [
        Route("http", options.http, ports.HTTP),
        Route("grpc", options.grpc, ports.GRPC),
        Route("dashboard", options.dashboard, ports.DASHBOARD),
    ]
    try:
        Forwarder(objects, target, say, options.address).serve(routes)
    except KeyboardInterrupt:
        print("ended")
    return 0


def down(options: argparse.Namespace) -> int:
    scenario, objects, screen = scenario_of(options), objects_of(options), new_screen()
    target = target_of(scenario)
    found = removing.inventory(objects, target, manifests.render(scenario), options.keep_namespace)
    found = removing.without_namespaces_of_others(objects, target, found, screen)
    removing.require_rights(objects, found)
    for one in found:
        screen.say(f"to delete: {label(one)}")
    if found and not removing.require_consent(options.yes, sys.stdin.isatty(), found, target):
        screen.say("nothing was deleted")
        return 1
    pace = Pace(options.timeout or DOWN_S, options.every)
    code = removing.remove(objects, target, found, screen, pace)
    if left := removing.remains(objects, target):
        screen.say("remains:", TITLE)
        for one_left in left:
            screen.say(f"  {one_left}", BUSY)
    screen.say("the cluster itself, the model bucket and the images cost money too: scripts/cleanup", BUSY)
    return code
