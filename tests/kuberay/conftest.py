"""Scenarios as they are rendered, and a strict reader of manifests to which an unknown field is an error."""

import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

CRDS = Path(__file__).parent.parent / "tools" / "deploy" / "crds"
KUBERNETES = "1.36"  # the version in kuberay/cluster/eksctl.yaml
# Choices that no committed scenario makes.
CHOICES = {
    "plans": ("yolo-gpu", ["plans.claim=plans"]),
    "elasticache": ("high-availability", ["head_store.address=rediss://cache.example:6380"]),
    "incremental": (
        "llm-gpu",
        ["upgrade.strategy=incremental", "upgrade.gateway_class=istio", "load_balancer=null"],
    ),
    "public": ("all", ["load_balancer.internal=false", "load_balancer.certificate=arn:aws:acm:x", "namespace=other"]),
    "llama2": (
        "llm-gpu",
        ["config=configs/serve.llama2.yaml", "environment.tensor_parallel_size='2'", "workers.llm.gpus=2"],
    ),
    "closed": ("local-cpu", ["admin_key={secret: keys, key: admin}", "hub_token={secret: hub, key: token}"]),
    "spot": (
        "all",
        [
            "workers.vision.spot=true",
            "workers.llm.priority_class=high",
            "head.priority_class=higher",
            "secret_store.name=vault",
        ],
    ),
    "bucket": ("local-cpu", ["models.url=s3://models/cpu"]),
}


@dataclass(frozen=True)
class Rendering:
    """A scenario's manifests and their parts."""

    name: str

    @cached_property
    def scenario(self):
        name, overrides = CHOICES.get(self.name, (self.name, []))
        return read_scenario(name, overrides)

    @cached_property
    def manifests(self):
        return render(self.scenario)

    def of_kind(self, kind):
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    @cached_property
    def service(self):
        (service,) = self.of_kind("RayService")
        return service

    @cached_property
    def serve(self):
        return yaml.safe_load(self.service["spec"]["serveConfigV2"])

    @cached_property
    def options(self):
        """Of each Serve deployment, by its name."""
        (application,) = self.serve["applications"]
        return {deployment["name"]: deployment for deployment in application["deployments"]}

    @cached_property
    def cluster(self):
        return self.service["spec"]["rayClusterConfig"]

    @cached_property
    def groups(self):
        workers = {group["groupName"]: group for group in self.cluster["workerGroupSpecs"]}
        return {"head": self.cluster["headGroupSpec"]} | workers

    @cached_property
    def pods(self):
        """The pod specification of each group."""
        return {name: group["template"]["spec"] for name, group in self.groups.items()}

    @cached_property
    def balancers(self):
        return [one for one in self.of_kind("Service") if one["spec"].get("type") == "LoadBalancer"]

    @cached_property
    def policies(self):
        """Specifications of network policies, by name without the service's."""
        prefix = f"{self.scenario.name}-"
        return {one["metadata"]["name"].removeprefix(prefix): one["spec"] for one in self.of_kind("NetworkPolicy")}


RENDERINGS = [Rendering(name) for name in (*scenario_names(), *CHOICES)]


@pytest.fixture
def renderings():
    """Each in turn; a failed test shows as output which it was."""
    return (print(rendering.name) or rendering for rendering in RENDERINGS)


def closed(schema):
    """A CRD's schema as a JSON schema in which unknown fields are errors."""
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in found:
        found["properties"] = {name: closed(below) for name, below in found["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = closed(found[key])
    return found


@cache
def custom_kinds():
    found = {}
    for path in CRDS.glob("*.yaml"):
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            spec = document["spec"]
            for version in spec["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}  # which CRDs leave to Kubernetes
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft7Validator(schema)
    return found


def refusals_of(manifest):
    """The errors of a strict API server."""
    validator = custom_kinds().get((manifest["apiVersion"], manifest["kind"]))
    if validator:
        metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
        errors = validator.iter_errors(manifest)
        return refusals_of(metadata) + [f"{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in errors]
    try:
        kubernetes_validate.validate(json.loads(json.dumps(manifest)), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


@pytest.fixture(scope="session")
def refusals():
    return refusals_of
