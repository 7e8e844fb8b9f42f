"""The steps of an installation and of its cleanup, and what they share: kubeconfig, cluster access, add-ons."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import FIELD_MANAGER, MANAGER_LABEL, RAY_API, labels_of
from serve_app.tools.deploy.aws import checks, costs, images
from serve_app.tools.deploy.aws.addons import AddOns, vpc_of
from serve_app.tools.deploy.aws.bucket import create_bucket, delete_bucket
from serve_app.tools.deploy.aws.cloudformation import create_karpenter_stack, delete_karpenter_stack
from serve_app.tools.deploy.aws.cluster import (
    ANSWERING,
    cluster_status,
    create_cluster,
    delete_cluster,
    describe_cluster,
)
from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.aws.kubeconfig import write_kubeconfig
from serve_app.tools.deploy.aws.objects import ClusterObjects
from serve_app.tools.deploy.aws.runner import Runner
from serve_app.tools.deploy.aws.scenarios import InstalledScenario, save_scenario, saved_path
from serve_app.tools.deploy.aws.secrets import check_hub_token, create_secrets
from serve_app.tools.deploy.monitoring import monitoring_manifests, ray_dashboards

BALANCERS_TIMEOUT_S = 600
SCRIPTS = PROJECT_ROOT / "scripts"


@dataclass(frozen=True, slots=True)
class Step:
    """Creates or deletes what is missing or left, so that it can run at any time and again."""

    name: str
    purpose: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command line, and HF_TOKEN; `every_service` takes down those that were installed from elsewhere too."""

    kubeconfig: Path
    models: Path | None = None
    hub_token: str | None = field(default=None, repr=False)
    delete_models: bool = False
    delete_images: bool = False
    every_service: bool = False


class Installer:
    """Installs the first of `scenarios`; a cleanup takes all of them down."""

    def __init__(
        self, runner: Runner, installation: Installation, scenarios: Sequence[InstalledScenario], options: Options
    ) -> None:
        self._runner = runner
        self._installation = installation
        self._scenarios = scenarios
        self._scenario = scenarios[0].scenario
        self._options = options
        self._cluster: dict[str, Any] | None = None
        self._objects: ClusterObjects | None = None

    def install_steps(self) -> tuple[Step, ...]:
        runner, installation = self._runner, self._installation
        return (
            Step("check", "tools and quotas", self._check),
            Step("bucket", f"the model bucket {installation.bucket}", lambda: create_bucket(runner, installation)),
            Step("images", "image repositories on ECR", self._create_repositories),
            Step("roles", "Karpenter's roles and queue", lambda: create_karpenter_stack(runner, installation)),
            Step("cluster", f"the EKS cluster {installation.cluster} (about 20 minutes)", self._create_cluster),
            Step("access", f"a kubeconfig in {self._options.kubeconfig}", self._write_kubeconfig),
            Step("secrets", "namespaces, keys and tokens", self._create_secrets),
            Step("add-ons", "Helm charts, disks and node pools", self._install_addons),
            Step("monitoring", "scrapes, alerts and dashboards", self._apply_monitoring),
            Step("models", "the model repository to the bucket", self._push_models),
            Step("service", f"the scenario {self._scenario.scenario}", self._bring_up),
        )

    def cleanup_steps(self) -> tuple[Step, ...]:
        """In reverse order, so that each part still has what deletes it."""
        runner, installation = self._runner, self._installation
        steps = [
            Step("check", "tools", lambda: checks.check_tools(runner)),
            Step("service", "the service and its load balancers", self._take_down),
            Step("nodes", "Karpenter's node pools and instances", self._delete_nodes),
            Step("add-ons", "Helm charts and their disks", self._uninstall_addons),
            Step("cluster", f"the EKS cluster {installation.cluster}", lambda: delete_cluster(runner, installation)),
            Step("roles", "Karpenter's roles and queue", lambda: delete_karpenter_stack(runner, installation)),
        ]
        if self._options.delete_images:
            steps.append(Step("images", "image repositories on ECR", lambda: images.delete_repositories(runner)))
        if self._options.delete_models:
            purpose = f"the model bucket {installation.bucket}"
            steps.append(Step("bucket", purpose, lambda: delete_bucket(runner, installation)))
        return (*steps, Step("rest", "remaining costs", self._list_costs))

    def _check(self) -> None:
        checks.check_tools(self._runner)
        checks.warn_about_quotas(self._runner, self._scenario)
        models, bucket = self._scenario.models, self._installation.bucket
        if models and models.url.removeprefix("s3://").partition("/")[0] != bucket:
            self._runner.say(f"warning: models.url is {models.url}, but pods may read only {bucket}; see --bucket")
        if models and self._options.models and not self._options.models.is_dir():
            raise ConfigurationError(
                f"no model repository at {self._options.models}; build it with `make models TARGET=gpu`"
            )
        if not self._runner.dry_run and describe_cluster(self._runner, self._installation) is None:
            check_hub_token(ClusterObjects(None, self._runner.say), self._scenario, self._options.hub_token)

    def _create_repositories(self) -> None:
        images.create_repositories(self._runner, self._installation)
        if missing := self._missing_images():
            self._runner.say(f"warning: push these images before the last step: {missing}")

    def _missing_images(self) -> str:
        """Empty where none is missing."""
        missing = images.missing_images(self._runner, self._installation, self._scenario)
        names, tag = " ".join(missing), self._scenario.images.tag
        how = f"`kuberay/images/build --registry {self._installation.registry} --tag {tag} --push {names}`"
        return f"{names} with tag {tag}; build and push them with {how}" if missing else ""

    def _create_cluster(self) -> None:
        create_cluster(self._runner, self._installation, self._scenario.name, self._scenario.namespace)

    def _write_kubeconfig(self) -> None:
        path = self._options.kubeconfig
        self._runner.say(f"write {path}; for kubectl: export KUBECONFIG={path}")
        self._describe_cluster()

    def _create_secrets(self) -> None:
        token = self._options.hub_token or ("from HF_TOKEN" if self._runner.dry_run else None)
        create_secrets(self._connect(), self._scenario, token)

    def _install_addons(self) -> None:
        self._addons().install("VPC" if self._runner.dry_run else vpc_of(self._describe_cluster()))

    def _apply_monitoring(self) -> None:
        scenario = self._scenario
        namespace, labels = scenario.namespace, labels_of(scenario.name)
        self._connect().apply(*monitoring_manifests(namespace, labels), *ray_dashboards(namespace, labels))

    def _push_models(self) -> None:
        if self._scenario.models is None or self._options.models is None:
            self._runner.say("nothing to push: the scenario has no model repository, or --no-models was given")
            return
        self._run_script("models", "push", str(self._options.models), self._scenario.models.url)

    def _bring_up(self) -> None:
        if missing := self._missing_images():
            raise ConfigurationError(f"images are missing: {missing}")
        installed = self._scenarios[0]
        path = saved_path(installed, self._installation)
        self._runner.say(f"write {path}: the scenario with its registry and bucket, for later commands")
        if not self._runner.dry_run:
            save_scenario(installed, self._installation)
        self._deploy("up", installed)
        self._runner.say(f"to see it: export KUBECONFIG={self._options.kubeconfig}; scripts/deploy status {path}")

    def _take_down(self) -> None:
        if self._cluster_answers():
            for installed in self._scenarios:
                self._deploy("down", installed, "--yes")
            if self._options.every_service:
                self._take_down_others()
        self._runner.wait(
            "the load balancers are deleted",
            lambda: not costs.load_balancers(self._runner, self._installation),
            BALANCERS_TIMEOUT_S,
        )

    def _take_down_others(self) -> None:
        """Services that scripts/deploy brought up without a saved scenario; `down` finds what belongs to each."""
        labels = f"{MANAGER_LABEL}={FIELD_MANAGER}"
        for service in self._connect().list(RAY_API, "RayService", labels=labels):
            metadata, first = service["metadata"], self._scenarios[0]
            names = (f"name={metadata['name']}", f"namespace={metadata['namespace']}")
            self._deploy("down", replace(first, overrides=(*first.overrides, *names)), "--yes")

    def _delete_nodes(self) -> None:
        if self._cluster_answers():
            self._addons().delete_nodes()

    def _uninstall_addons(self) -> None:
        if self._cluster_answers():
            self._addons().uninstall(sorted({installed.scenario.namespace for installed in self._scenarios}))

    def _list_costs(self) -> None:
        found = costs.remaining_costs(self._runner, self._installation)
        if self._runner.dry_run:
            return
        self._runner.say("these remain, and cost money:" if found else "nothing that costs money remains")
        for line in found:
            self._runner.say(f"  {line}")

    def _cluster_answers(self) -> bool:
        """Steps inside the cluster are skipped where it is gone or can't be reached."""
        if self._runner.dry_run:
            return True
        name, status = self._installation.cluster, cluster_status(self._runner, self._installation)
        if status not in ANSWERING:
            state = f"the cluster {name} is {status}" if status else f"there is no cluster {name}"
            self._runner.say(f"{state}: nothing to do")
        return status in ANSWERING

    def _deploy(self, command: str, installed: InstalledScenario, *options: str) -> None:
        self._describe_cluster()
        overrides = [f"--set={override}" for override in installed.overrides]
        kubeconfig = f"--kubeconfig={self._options.kubeconfig}"
        self._run_script("deploy", command, installed.source, kubeconfig, *overrides, *options)

    def _run_script(self, name: str, *arguments: str) -> None:
        self._runner.run([sys.executable, "-u", str(SCRIPTS / name), *arguments])  # -u: pass each line on at once

    def _addons(self) -> AddOns:
        return AddOns(self._runner, self._connect(), self._installation, self._scenario, self._options.kubeconfig)

    def _connect(self) -> ClusterObjects:
        if self._objects is None:
            self._describe_cluster()
            objects = None if self._runner.dry_run else Objects(connect(self._options.kubeconfig))
            self._objects = ClusterObjects(objects, self._runner.say)
        return self._objects

    def _describe_cluster(self) -> dict[str, Any]:
        """Also writes the kubeconfig: one from an earlier run may be of another region or account."""
        if self._cluster is None and not self._runner.dry_run:
            name, found = self._installation.cluster, describe_cluster(self._runner, self._installation)
            if found is None:
                raise ConfigurationError(
                    f"no cluster {name} in {self._installation.region}; create it with --from cluster"
                )
            if found["status"] not in ANSWERING:
                raise ConfigurationError(f"the cluster {name} is {found['status']}; --from cluster waits for it")
            write_kubeconfig(self._options.kubeconfig, self._installation, found)
            self._cluster = found
        return self._cluster or {}
