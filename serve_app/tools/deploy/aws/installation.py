"""One installation: the steps that make it, and those that take it away, over what they share."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import labels_of
from serve_app.tools.deploy.aws import checks, leftovers
from serve_app.tools.deploy.aws.access import write_kubeconfig
from serve_app.tools.deploy.aws.addons import AddOns
from serve_app.tools.deploy.aws.bucket import delete_bucket, delete_writers_policy, make_bucket
from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.aws.cluster import ANSWERS, delete_cluster, description_of, make_cluster, status_of
from serve_app.tools.deploy.aws.credentials import check_hub_token, make_secrets
from serve_app.tools.deploy.aws.kube import Kube
from serve_app.tools.deploy.aws.repositories import delete_repositories, make_repositories, missing_images
from serve_app.tools.deploy.aws.services import Service, keep, kept_path
from serve_app.tools.deploy.aws.site import Site
from serve_app.tools.deploy.aws.stack import delete_stack, make_stack
from serve_app.tools.deploy.aws.steps import Step
from serve_app.tools.deploy.monitoring import monitoring_manifests

BALANCERS_TIMEOUT_S = 600
REHEARSED = {"resourcesVpcConfig": {"vpcId": "VPC"}}  # of a cluster that isn't there
SCRIPTS = PROJECT_ROOT / "scripts"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person said on the command line, and HF_TOKEN."""

    kubeconfig: Path
    models: Path | None = None
    hub_token: str | None = field(default=None, repr=False)
    delete_models: bool = False
    delete_images: bool = False
    every_service: bool = False


class Installation:
    """Of the first of `services`; the others are only taken down."""

    def __init__(self, calls: Calls, site: Site, services: Sequence[Service], choices: Choices) -> None:
        self._calls = calls
        self._site = site
        self._services = services
        self._scenario = services[0].scenario
        self._choices = choices
        self._has_access = False
        self._known: dict[str, Any] | None = None
        self._connected: Kube | None = None

    def steps(self) -> tuple[Step, ...]:
        return (
            Step("check", "tools and quotas", self._check),
            Step("bucket", f"the models' bucket {self._site.bucket}", lambda: make_bucket(self._calls, self._site)),
            Step("images", "image repositories on ECR", self._make_repositories),
            Step("roles", "Karpenter's roles and queue", lambda: make_stack(self._calls, self._site)),
            Step("cluster", f"the EKS cluster {self._site.cluster} (about 20 minutes)", self._make_cluster),
            Step("access", f"a kubeconfig in {self._choices.kubeconfig}", self._write_kubeconfig),
            Step("secrets", "namespaces, keys and tokens", self._make_secrets),
            Step("add-ons", "Helm charts, disks and node pools", self._install_addons),
            Step("monitoring", "scrapes, alerts and dashboards", self._apply_monitoring),
            Step("models", "the model repository into the bucket", self._push_models),
            Step("service", f"the scenario {self._scenario.scenario}", self._bring_up),
        )

    def cleaning_steps(self) -> tuple[Step, ...]:
        """In the reverse order: each goes while what ends it properly still runs."""
        calls, site, choices = self._calls, self._site, self._choices
        steps = [
            Step("check", "tools", lambda: checks.check_tools(calls)),
            Step("service", "the service and its load balancers", self._take_down),
            Step("nodes", "Karpenter's pools and machines", self._if_there(lambda: self._addons().end_nodes())),
            Step("add-ons", "Helm charts and their disks", self._if_there(self._uninstall_addons)),
            Step("cluster", f"the EKS cluster {site.cluster}", lambda: delete_cluster(calls, site)),
            Step("roles", "Karpenter's roles and queue", lambda: delete_stack(calls, site)),
        ]
        if choices.delete_images:
            steps.append(Step("images", "image repositories on ECR", lambda: delete_repositories(calls)))
        if choices.delete_models:
            steps.append(Step("bucket", f"the models' bucket {site.bucket}", self._delete_bucket))
        steps.append(Step("rest", "what remains and costs", self._tell_the_rest))
        return tuple(steps)

    def _check(self) -> None:
        checks.check_tools(self._calls)
        checks.check_quotas(self._calls, self._scenario)
        models = self._scenario.models
        if models and models.url.removeprefix("s3://").partition("/")[0] != self._site.bucket:
            self._calls.say(f"warning: pods may read {self._site.bucket}, and models.url is {models.url}: see --bucket")
        if self._choices.models and self._scenario.models and not self._choices.models.is_dir():
            raise ConfigurationError(f"no model repository at {self._choices.models}: make models TARGET=gpu builds it")
        if not self._calls.rehearsal and description_of(self._calls, self._site) is None:
            check_hub_token(Kube(None, self._calls.say), self._scenario, self._choices.hub_token)

    def _make_repositories(self) -> None:
        make_repositories(self._calls, self._site)
        if missing := missing_images(self._calls, self._site, self._scenario):
            self._calls.say(f"warning: the last step needs images that aren't there yet: {self._how_to_push(missing)}")

    def _how_to_push(self, missing: Sequence[str]) -> str:
        names = " ".join(missing)
        tag = self._scenario.images.tag
        return f"{names} with tag {tag} in {self._site.registry}; kuberay/images/build --push {names} makes them"

    def _make_cluster(self) -> None:
        make_cluster(self._calls, self._site, self._scenario.name, self._scenario.namespace)

    def _write_kubeconfig(self) -> None:
        path = self._choices.kubeconfig
        self._calls.say(f"write {path}; for kubectl: export KUBECONFIG={path}")
        self._get_access()

    def _get_access(self) -> None:
        """Before anything goes by the file: its name has neither region nor account, and it may be of another run."""
        if not self._has_access and not self._calls.rehearsal:
            write_kubeconfig(self._choices.kubeconfig, self._site, self._description())
            self._has_access = True

    def _make_secrets(self) -> None:
        token = self._choices.hub_token or ("of the environment" if self._calls.rehearsal else None)
        make_secrets(self._kube(), self._scenario, token)

    def _install_addons(self) -> None:
        self._addons().install(REHEARSED if self._calls.rehearsal else self._description())

    def _apply_monitoring(self) -> None:
        scenario = self._scenario
        self._kube().apply(monitoring_manifests(scenario.namespace, labels_of(scenario.name)))

    def _push_models(self) -> None:
        if self._scenario.models is None or self._choices.models is None:
            self._calls.say("nothing is pushed: the scenario has no model repository, or --no-models was said")
            return
        self._script("models", "push", str(self._choices.models), self._scenario.models.url)

    def _bring_up(self) -> None:
        if missing := missing_images(self._calls, self._site, self._scenario):
            raise ConfigurationError(f"images are missing: {self._how_to_push(missing)}")
        service = self._services[0]
        kept = kept_path(service, self._site)
        self._calls.say(f"write {kept}: this scenario with its registry and bucket, for every later command")
        if not self._calls.rehearsal:
            keep(service, self._site)
        self._deploy("up", service)
        self._calls.say(f"look: export KUBECONFIG={self._choices.kubeconfig}; scripts/deploy status {kept}")

    def _take_down(self) -> None:
        self._if_there(self._take_services_down)()
        self._calls.wait(
            "the load balancers are gone",
            lambda: not leftovers.load_balancers(self._calls, self._site),
            BALANCERS_TIMEOUT_S,
        )

    def _take_services_down(self) -> None:
        """Where no scenario was said, also what was brought up from elsewhere: what belongs to it is known there."""
        for service in self._services:
            self._deploy("down", service, "--yes")
        if self._choices.every_service:
            first = self._services[0]
            for namespace, name in self._kube().services():
                ours = (*first.overrides, f"name={name}", f"namespace={namespace}")
                self._deploy("down", replace(first, overrides=ours), "--yes")

    def _uninstall_addons(self) -> None:
        self._addons().uninstall(sorted({service.scenario.namespace for service in self._services}))

    def _delete_bucket(self) -> None:
        delete_bucket(self._calls, self._site)
        delete_writers_policy(self._calls, self._site)

    def _tell_the_rest(self) -> None:
        found = leftovers.left_over(self._calls, self._site)
        if self._calls.rehearsal:
            return
        self._calls.say("these remain, and cost:" if found else "nothing of it remains that costs")
        for line in found:
            self._calls.say(f"  {line}")

    def _if_there(self, act: Callable[[], None]) -> Callable[[], None]:
        """Inside a cluster nothing is done where there is none, or none that answers."""

        def run() -> None:
            if not self._calls.rehearsal:
                status = status_of(self._calls, self._site)
                if status not in ANSWERS:
                    name = self._site.cluster
                    found = f"the cluster {name} is {status}" if status else f"there is no cluster {name}"
                    self._calls.say(f"{found}: nothing to do")
                    return
            act()

        return run

    def _deploy(self, command: str, service: Service, *more: str) -> None:
        self._get_access()
        overrides = [f"--set={one}" for one in service.overrides]
        place = f"--kubeconfig={self._choices.kubeconfig}"
        self._script("deploy", command, service.source, place, *overrides, *more)

    def _script(self, name: str, *arguments: str) -> None:
        self._calls.run([sys.executable, "-u", str(SCRIPTS / name), *arguments])  # -u: each line as it comes

    def _addons(self) -> AddOns:
        return AddOns(self._calls, self._kube(), self._site, self._scenario, self._choices.kubeconfig)

    def _kube(self) -> Kube:
        """Connected once: the client asks for another token when one runs out."""
        if self._connected is None:
            self._get_access()
            objects = None if self._calls.rehearsal else Objects(connect(self._choices.kubeconfig))
            self._connected = Kube(objects, self._calls.say)
        return self._connected

    def _description(self) -> dict[str, Any]:
        if self._known is None:
            name, found = self._site.cluster, description_of(self._calls, self._site)
            if found is None:
                raise ConfigurationError(f"no cluster {name} in {self._site.region}: --from cluster makes it")
            if found["status"] not in ANSWERS:
                raise ConfigurationError(f"the cluster {name} is {found['status']}: --from cluster waits for it")
            self._known = found
        return self._known
