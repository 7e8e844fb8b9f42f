"""The command lines of `scripts/install` and `scripts/cleanup`."""

import argparse
import os
import sys
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.aws.access import check_kubeconfig
from serve_app.tools.deploy.aws.calls import Calls, Rehearsal
from serve_app.tools.deploy.aws.installation import Choices, Installation
from serve_app.tools.deploy.aws.services import DEFAULT, Service, kept_services, service_of
from serve_app.tools.deploy.aws.site import (
    ACCOUNT,
    CLUSTER,
    REGION,
    Site,
    bucket_of,
    check_names,
    default_kubeconfig,
)
from serve_app.tools.deploy.aws.steps import chosen, run_steps

MODELS = Path("model_repository/gpu")


def install(description: str, arguments: list[str] | None = None) -> None:
    parser = _parser(description, f"default: {DEFAULT}")
    parser.add_argument("--models", type=Path, default=PROJECT_ROOT / MODELS, help=f"what is pushed; default: {MODELS}")
    parser.add_argument("--no-models", action="store_true", help="push none: they are in the bucket, or come later")
    _main(parser.parse_args(arguments), "scripts/install")


def cleanup(description: str, arguments: list[str] | None = None) -> None:
    parser = _parser(description, f"default: what was installed from here, else {DEFAULT}")
    parser.add_argument(
        "--delete-models", action="store_true", help="the bucket too, with every version of every model"
    )
    parser.add_argument("--delete-images", action="store_true", help="the image repositories too, with every image")
    parser.add_argument("--yes", action="store_true", help="don't ask first")
    _main(parser.parse_args(arguments), "scripts/cleanup")


def _parser(description: str, scenario: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scenario", help=f"of kuberay/scenarios, or a file; {scenario}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="what differs in the scenario")
    parser.add_argument("--region", help=f"default: AWS's own setting, else {REGION}")
    parser.add_argument("--cluster-name", default=CLUSTER, help="default: %(default)s")
    parser.add_argument("--bucket", help="of the models; default: named after cluster, account and region")
    parser.add_argument("--kubeconfig", type=Path, help="is written, whole; default: ~/.kube/config.CLUSTER")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="this step alone; may be repeated")
    parser.add_argument("--from", dest="start", metavar="STEP", help="this step and what comes after it")
    parser.add_argument("--dry-run", action="store_true", help="print every call and make none; needs no account")
    return parser


def _main(options: argparse.Namespace, command: str) -> None:
    try:
        _run(options, command)
    except ServeAppError as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit(f"\nstopped; what was made stays, and {command} goes on from there")


def _run(options: argparse.Namespace, command: str) -> None:
    session = _session(options)
    check_names(options.cluster_name, str(session.region_name), options.bucket)
    kubeconfig = options.kubeconfig or default_kubeconfig(options.cluster_name)
    check_kubeconfig(kubeconfig, options.cluster_name)
    calls = Rehearsal(session, _indented) if options.dry_run else Calls(session, _indented)
    site = _site(options, calls)
    cleans = command.endswith("cleanup")
    whole = cleans and options.scenario is None and not options.set
    services = _services(options, site, whole)
    choices = Choices(
        kubeconfig,
        None if getattr(options, "no_models", True) else options.models,
        os.environ.get("HF_TOKEN"),
        getattr(options, "delete_models", False),
        getattr(options, "delete_images", False),
        whole,
    )
    installation = Installation(calls, site, services, choices)
    steps = chosen(installation.cleaning_steps() if cleans else installation.steps(), options.only, options.start)
    example = " (an example)" if options.dry_run else ""
    names = " and ".join(service.scenario.scenario for service in services)
    _say(f"account {site.account}{example}, {site.region}, cluster {site.cluster}, scenario {names}")
    if cleans and not (options.yes or options.dry_run):
        _agree(site, [step.name for step in steps])
    run_steps(steps, _indented, command)
    _say("nothing was done: this was a rehearsal" if options.dry_run else "done")


def _session(options: argparse.Namespace) -> boto3.Session:
    try:
        session = boto3.Session(region_name=options.region)
        return session if session.region_name else boto3.Session(region_name=REGION)
    except BotoCoreError as problem:
        raise ConfigurationError(f"{problem}; `aws configure list-profiles` shows what AWS_PROFILE may be") from None


def _site(options: argparse.Namespace, calls: Calls) -> Site:
    region = str(calls.session.region_name)
    identity = calls.ask("sts", "get_caller_identity")
    account = str(identity["Account"]) if identity else ACCOUNT
    try:
        partition = calls.session.get_partition_for_region(region)
    except BotoCoreError:
        raise ConfigurationError(f"--region {region!r} is no region of AWS's; {REGION} is one") from None
    bucket = options.bucket or bucket_of(options.cluster_name, account, region)
    if identity:
        check_names(options.cluster_name, region, bucket)
    return Site(options.cluster_name, region, account, bucket, partition)


def _services(options: argparse.Namespace, site: Site, whole: bool) -> list[Service]:
    kept = kept_services(site) if whole else []
    return kept or [service_of(options.scenario or DEFAULT, options.set, site, options.bucket)]


def _agree(site: Site, steps: list[str]) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to ask: --yes says that it is meant")
    _say(f"this ends {', '.join(steps)} of {site.cluster} in account {site.account}")
    try:
        answer = input("write the cluster's name to go on: ")
    except EOFError:
        raise ConfigurationError("no name was written: nothing was done") from None
    if answer.strip() != site.cluster:
        raise ConfigurationError("that is another name: nothing was done")


def _say(line: str) -> None:
    print(line, flush=True)


def _indented(line: str) -> None:
    print(line if line.startswith("[") else f"  {line}", flush=True)
