"""The command lines of scripts/install and scripts/cleanup."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError

from serve_app.errors import ConfigurationError, ServeAppError, near_miss
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.aws.installation import (
    ACCOUNT,
    CLUSTER,
    REGION,
    Installation,
    check_names,
    default_bucket,
    default_kubeconfig,
)
from serve_app.tools.deploy.aws.installer import Installer, Options, Step
from serve_app.tools.deploy.aws.kubeconfig import check_kubeconfig
from serve_app.tools.deploy.aws.runner import DryRunner, Runner
from serve_app.tools.deploy.aws.scenarios import DEFAULT, resolve_scenario, saved_scenarios
from serve_app.tools.deploy.scenarios.scenario import read_scenario

MODELS = Path("model_repository/gpu")


def install(description: str, arguments: list[str] | None = None) -> None:
    parser = _parser(description, f"default: {DEFAULT}")
    parser.add_argument(
        "--models", type=Path, default=PROJECT_ROOT / MODELS, help=f"model repository to push; default: {MODELS}"
    )
    parser.add_argument("--no-models", action="store_true", help="push no models")
    _main(parser.parse_args(arguments), "scripts/install")


def cleanup(description: str, arguments: list[str] | None = None) -> None:
    parser = _parser(description, f"default: those installed from this checkout, else {DEFAULT}")
    parser.add_argument("--delete-models", action="store_true", help="also delete the bucket with all models")
    parser.add_argument("--delete-images", action="store_true", help="also delete the image repositories")
    parser.add_argument("--yes", action="store_true", help="don't ask for confirmation")
    _main(parser.parse_args(arguments), "scripts/cleanup")


def _parser(description: str, scenario: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scenario", help=f"name in kuberay/scenarios, or a file; {scenario}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the scenario")
    parser.add_argument("--region", help=f"AWS region; default: that of your AWS configuration, else {REGION}")
    parser.add_argument("--cluster-name", default=CLUSTER, help="default: %(default)s")
    parser.add_argument("--bucket", help="model bucket; default: named after cluster, account and region")
    parser.add_argument("--kubeconfig", type=Path, help="file to write; default: ~/.kube/config.CLUSTER")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="run this step; may be repeated")
    parser.add_argument("--from", dest="start", metavar="STEP", help="run this step and those after it")
    parser.add_argument("--dry-run", action="store_true", help="print every call and make none; needs no account")
    return parser


def _main(options: argparse.Namespace, command: str) -> None:
    try:
        _run(options, command)
    except ServeAppError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\ninterrupted; what was created stays: run {command} again to continue")


def _run(options: argparse.Namespace, command: str) -> None:
    if options.scenario or command == "scripts/install":
        read_scenario(options.scenario or DEFAULT, options.set)  # before anything is asked of AWS
    session = _session(options)
    check_names(options.cluster_name, str(session.region_name), options.bucket)
    kubeconfig = options.kubeconfig or default_kubeconfig(options.cluster_name)
    check_kubeconfig(kubeconfig, options.cluster_name)
    runner = (DryRunner if options.dry_run else Runner)(session, _say_indented)
    installation = _installation(options, runner)
    is_cleanup = command == "scripts/cleanup"
    every_service = is_cleanup and options.scenario is None and not options.set
    scenarios = saved_scenarios(installation) if every_service else []
    if not scenarios:
        scenarios = [resolve_scenario(options.scenario or DEFAULT, options.set, installation, options.bucket)]
    installer = Installer(runner, installation, scenarios, _installer_options(options, kubeconfig, every_service))
    every_step = installer.cleanup_steps() if is_cleanup else installer.install_steps()
    steps = _select(every_step, options.only, options.start)
    example = " (an example)" if options.dry_run else ""
    names = " and ".join(installed.scenario.scenario for installed in scenarios)
    print(
        f"account {installation.account}{example}, {installation.region}, cluster {installation.cluster}, "
        f"scenario {names}",
        flush=True,
    )
    if is_cleanup and not (options.yes or options.dry_run):
        _confirm(installation, steps)
    _run_steps(steps, command)
    print("dry run: nothing was changed" if options.dry_run else "done", flush=True)


def _installer_options(options: argparse.Namespace, kubeconfig: Path, every_service: bool) -> Options:
    return Options(
        kubeconfig,
        None if getattr(options, "no_models", True) else options.models,
        os.environ.get("HF_TOKEN"),
        getattr(options, "delete_models", False),
        getattr(options, "delete_images", False),
        every_service,
    )


def _session(options: argparse.Namespace) -> boto3.Session:
    try:
        session = boto3.Session(region_name=options.region)
        return session if session.region_name else boto3.Session(region_name=REGION)
    except BotoCoreError as error:
        raise ConfigurationError(f"{error}; `aws configure list-profiles` lists the values for AWS_PROFILE") from None


def _installation(options: argparse.Namespace, runner: Runner) -> Installation:
    region = str(runner.session.region_name)
    try:
        partition = runner.session.get_partition_for_region(region)
    except BotoCoreError:
        raise ConfigurationError(f"--region must be an AWS region such as {REGION}, got {region!r}") from None
    identity = runner.get("sts", "get_caller_identity")
    account = str(identity["Account"]) if identity else ACCOUNT
    bucket = options.bucket or default_bucket(options.cluster_name, account, region)
    check_names(options.cluster_name, region, bucket)
    return Installation(options.cluster_name, region, account, bucket, partition)


def _select(steps: Sequence[Step], only: Sequence[str], start: str | None) -> Sequence[Step]:
    names = [step.name for step in steps]
    for name in (*only, *([start] if start else [])):
        if name not in names:
            raise ConfigurationError(f"no step {name!r}{near_miss(name, names)}; the steps are {', '.join(names)}")
    if only and start:
        raise ConfigurationError("--only and --from can't be combined: use one of them")
    if only:
        return [step for step in steps if step.name in only]
    return steps[names.index(start) :] if start else steps


def _run_steps(steps: Sequence[Step], command: str) -> None:
    for number, step in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {step.name}: {step.purpose}", flush=True)
        try:
            step.run()
        except ServeAppError as error:
            raise type(error)(
                f"step {step.name}: {error}\nwhat was done so far stays; to continue, fix this and run {command} again "
                f"(or `{command} --from {step.name}`)"
            ) from None


def _confirm(installation: Installation, steps: Sequence[Step]) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("can't ask for confirmation without a terminal; confirm with --yes")
    names = ", ".join(step.name for step in steps)
    print(f"this deletes {names} of {installation.cluster} in account {installation.account}", flush=True)
    try:
        answer = input("type the cluster's name to confirm: ")
    except EOFError:
        answer = ""
    if answer.strip() != installation.cluster:
        raise ConfigurationError(
            f"not confirmed: expected {installation.cluster!r}, got {answer!r}; nothing was deleted"
        )


def _say_indented(line: str) -> None:
    print(f"  {line}", flush=True)
