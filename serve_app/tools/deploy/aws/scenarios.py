"""Scenarios of an installation: filled in with its registry and bucket, and saved in kuberay/sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.scenarios.files import keep_scenario
from serve_app.tools.deploy.scenarios.scenario import Scenario, read_scenario, scenario_names

SAVED = PROJECT_ROOT / "kuberay" / "sites"
DEFAULT = "yolo-gpu"
LOCAL = "local-cpu"
PLACEHOLDER_BUCKET = "serve-app-models"  # in kuberay/scenarios; an installation replaces it by its own


@dataclass(frozen=True, slots=True)
class InstalledScenario:
    """`source` and `overrides` are the arguments of scripts/deploy that give `scenario`."""

    source: str
    overrides: tuple[str, ...]
    scenario: Scenario


def resolve_scenario(
    source: str, settings: Sequence[str], installation: Installation, bucket: str | None
) -> InstalledScenario:
    """A registry or bucket that the file or `--set` names is kept; `bucket` (--bucket) replaces that of the file."""
    if source == LOCAL:
        others = ", ".join(name for name in scenario_names() if name != LOCAL)
        raise ConfigurationError(
            f"{LOCAL} runs on kind or minikube (scripts/deploy up {LOCAL}), not on AWS; choose one of {others}"
        )
    scenario = read_scenario(source, settings)
    filled = []
    if "registry" not in scenario.images.model_fields_set:
        filled.append(f"images.registry={installation.registry}")
    if scenario.models and "models.url" not in {setting.partition("=")[0] for setting in settings}:
        current, _, prefix = scenario.models.url.removeprefix("s3://").partition("/")
        if bucket or current == PLACEHOLDER_BUCKET:
            filled.append(f"models.url=s3://{installation.bucket}/{prefix}".rstrip("/"))
    overrides = (*filled, *settings)
    return InstalledScenario(source, overrides, read_scenario(source, overrides))


def save_scenario(installed: InstalledScenario, installation: Installation) -> None:
    keep_scenario(installed.scenario, saved_path(installed, installation))


def saved_path(installed: InstalledScenario, installation: Installation) -> Path:
    return SAVED / f"{installation.cluster}.{installed.scenario.scenario}.yaml"


def saved_scenarios(installation: Installation) -> list[InstalledScenario]:
    """Those installed in this cluster from this checkout, the newest first."""
    paths = sorted(SAVED.glob(f"{installation.cluster}.*.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [InstalledScenario(str(path), (), read_scenario(str(path))) for path in paths]
