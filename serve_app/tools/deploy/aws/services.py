"""Which scenarios an installation is about, with its registry and bucket filled in, and the files that keep them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.aws.site import Site
from serve_app.tools.deploy.scenarios.files import keep_scenario
from serve_app.tools.deploy.scenarios.scenario import Scenario, read_scenario, scenario_names

SITES = PROJECT_ROOT / "kuberay" / "sites"
DEFAULT = "yolo-gpu"
LOCAL = "local-cpu"
NO_BUCKET = "serve-app-models"  # what the scenarios of kuberay/scenarios say, where an installation says its own


@dataclass(frozen=True, slots=True)
class Service:
    """A scenario as scripts/deploy takes it, by a name or a file and what is set in it, and read."""

    source: str
    overrides: tuple[str, ...]
    scenario: Scenario


def service_of(source: str, said: Sequence[str], site: Site, bucket: str | None) -> Service:
    """What a person says stands, on the command line or in a file; `bucket` is what --bucket says."""
    if source == LOCAL:
        others = ", ".join(name for name in scenario_names() if name != LOCAL)
        raise ConfigurationError(f"{LOCAL} is for kind or minikube, where scripts/deploy brings it up; here: {others}")
    scenario = read_scenario(source, said)
    ours = []
    if "registry" not in scenario.images.model_fields_set:
        ours.append(f"images.registry={site.registry}")
    if scenario.models and "models.url" not in {one.partition("=")[0] for one in said}:
        theirs, _, prefix = scenario.models.url.removeprefix("s3://").partition("/")
        if bucket or theirs == NO_BUCKET:
            ours.append(f"models.url=s3://{site.bucket}/{prefix}".rstrip("/"))
    overrides = (*ours, *said)
    return Service(source, overrides, read_scenario(source, overrides))


def keep(service: Service, site: Site) -> None:
    keep_scenario(service.scenario, kept_path(service, site))


def kept_path(service: Service, site: Site) -> Path:
    return SITES / f"{site.cluster}.{service.scenario.scenario}.yaml"


def kept_services(site: Site) -> list[Service]:
    """What was brought up in this cluster from here, the newest first."""
    paths = sorted(SITES.glob(f"{site.cluster}.*.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [Service(str(path), (), read_scenario(str(path))) for path in paths]
