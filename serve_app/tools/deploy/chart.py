"""The Helm chart: what `render` gives for a scenario, with a template's expressions where values may differ.

Each key that the chart has as a value is rendered as a mark that nothing else has, which is then replaced. So the
objects are described once, in `manifests`, and `helm template` gives what `render` gives.
"""

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import Scenario, parse_scenario
from serve_app.tools.deploy.yaml_format import ManifestDumper, to_yaml

VARIABLE = "A_VARIABLE_OF_THE_CHART"
TEXTS = (
    "name", "images.registry", "images.tag", "operator_namespace", "monitoring_namespace", "models.url", "keys.secret",
    "admin_key.secret", "hub_token.secret", "head_store.password.secret", "load_balancer.vpc",
)  # fmt: skip
NUMBERS = ("deletion_delay_s",)
OF_WORKERS = {"min": int, "max": int, "memory": str, "disk": str}
VALUES_HEAD = """\
# What the chart's templates take; the keys are those of kuberay/scenarios. Made by `scripts/deploy chart`.
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A key of a scenario, what stands for it in the rendered text, and the expression that replaces that."""

    key: str
    value: Any
    expression: str


def marks_of(scenario: Scenario) -> Iterator[Mark]:
    """Names are as long as names may be written, numbers greater than any that is meant."""
    given = scenario.model_dump(mode="json")
    for key in TEXTS:
        if find(given, key) is not None:
            mark = f"{key.replace('.', '-').replace('_', '-')}-of-the-chart"
            yield Mark(key, f"s3://{mark}" if key == "models.url" else mark, f"{{{{ .Values.{key} }}}}")
    for number, key in enumerate(NUMBERS):
        yield Mark(key, 7_000_001 + number, f"{{{{ int .Values.{key} }}}}")
    for number, role in enumerate(scenario.workers):
        for part, (key, kind) in enumerate(OF_WORKERS.items()):
            value = 7_100_001 + 1_000 * number + 10 * part
            path = f".Values.workers.{role}.{key}"
            yield Mark(f"workers.{role}.{key}", value if kind is int else f"{value}Mi",
                       f"{{{{ int {path} }}}}" if kind is int else f"{{{{ {path} }}}}")  # fmt: skip


def chart_files(scenarios: list[Scenario], version: str) -> dict[str, str]:
    """Text by path in the chart's folder."""
    names = [scenario.scenario for scenario in scenarios]
    files = {"Chart.yaml": chart_of(version), "templates/check.yaml": check_of(names)}
    files["values.yaml"] = VALUES_HEAD + to_text(values_of(scenarios[0]))
    for scenario in scenarios:
        files[f"templates/{scenario.scenario}.yaml"] = template_of(scenario)
        files[f"values/{scenario.scenario}.yaml"] = VALUES_HEAD + to_text(values_of(scenario))
    return files


def chart_of(version: str) -> str:
    return to_text({
        "apiVersion": "v2", "name": "serve-app", "version": version, "appVersion": version, "type": "application",
        "description": "YOLO by Triton and language models by vLLM behind one router, as a RayService of KubeRay",
    })  # fmt: skip


def check_of(names: list[str]) -> str:
    known = " ".join(f'"{name}"' for name in names)
    return (
        f"{{{{- if not (has .Values.scenario (list {known})) }}}}\n"
        f'{{{{- fail (printf "no scenario %q; known: {", ".join(names)}" .Values.scenario) }}}}\n'
        "{{- end }}\n"
    )


def values_of(scenario: Scenario) -> dict[str, Any]:
    """The scenario's own values of all that may differ."""
    given = scenario.model_dump(mode="json")
    values: dict[str, Any] = {"scenario": scenario.scenario, "createNamespace": True}
    for mark in marks_of(scenario):
        put(values, mark.key, find(given, mark.key))
    values["images"]["pull_policy"] = scenario.images.pull_policy
    values["environment"] = scenario.environment
    values["serveConfigV2"] = ""
    if scenario.load_balancer:
        values["load_balancer"] |= {"internal": scenario.load_balancer.internal,
                                    "clients": list(scenario.load_balancer.clients)}  # fmt: skip
    return values


def template_of(scenario: Scenario) -> str:
    content = scenario.model_dump(mode="json", exclude_none=True)
    marks = list(marks_of(scenario))
    for mark in marks:
        put(content, mark.key, mark.value)
    content |= {"namespace": "namespace-of-the-chart", "environment": {VARIABLE: "x"}}
    namespace, *rest = render(parse_scenario(content, scenario.scenario))
    text = f"{{{{- if .Values.createNamespace }}}}\n{marked([namespace])}{{{{- end }}}}\n{marked(rest)}"
    text = with_free_values(text, scenario)
    for mark in marks:
        text = text.replace(str(mark.value), mark.expression)
        if mark.key.endswith(".min"):  # of which a disruption budget keeps all but one
            text = re.sub(rf"\b{mark.value - 1}\b", f"{{{{ max 1 (sub (int .Values.{mark.key}) 1) }}}}", text)
    text = text.replace("namespace-of-the-chart", "{{ .Release.Namespace }}")
    if left := re.search(r"[\w.-]*of-the-chart|71000\d\d|OF_THE_CHART", text):
        raise ConfigurationError(f"chart: {scenario.scenario} is rendered with {left[0]}, which no value replaces")
    return f'{{{{- if eq .Values.scenario "{scenario.scenario}" }}}}\n{text}{{{{- end }}}}\n'


def marked(manifests: list[Manifest]) -> str:
    """As YAML, in which braces of its own aren't a template's."""
    return to_yaml(manifests).replace("{{", '{{ "{{" }}')


def with_free_values(text: str, scenario: Scenario) -> str:
    """Variables, the policy of pulls, Serve's configuration as a whole, and who may call the load balancer."""
    text = re.sub(
        rf"( *- )\{{name: {VARIABLE}, value: x\}}\n",
        r"{{- range $name, $value := .Values.environment }}"
        r"\n\1{name: {{ $name }}, value: {{ $value | quote }}}\n{{- end }}\n",
        text,
    )
    text = re.sub(r"(imagePullPolicy: )\w+", r"\1{{ .Values.images.pull_policy }}", text)
    text = re.sub(
        r"( +)serveConfigV2: \|\n((?:\1  .*\n|\n)+)",
        r"\1serveConfigV2: |\n{{- if .Values.serveConfigV2 }}{{ .Values.serveConfigV2 | nindent 4 }}\n{{- else }}\n"
        r"\2{{- end }}\n",
        text,
    )
    if scenario.load_balancer:
        text = re.sub(
            r"(aws-load-balancer-scheme: )\S+",
            r'\1{{ ternary "internal" "internet-facing" .Values.load_balancer.internal }}',
            text,
        )
        text = re.sub(
            r"( +)loadBalancerSourceRanges:(?: \[.*\]|(?:\n\1  - .*)+)",
            r"\1loadBalancerSourceRanges: "
            r"{{ .Values.load_balancer.clients | default (list .Values.load_balancer.vpc) | toJson }}",
            text,
        )
    return text


def write_chart(folder: Path, scenarios: list[Scenario]) -> None:
    """The values of the first scenario are those of the chart, unless others are given."""
    for name, text in chart_files(scenarios, importlib.metadata.version("serve_app")).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def to_text(content: dict[str, Any]) -> str:
    return yaml.dump(content, Dumper=ManifestDumper, sort_keys=False, width=1000, allow_unicode=True)


def find(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        content = content.setdefault(part, {})
    content[last] = value
