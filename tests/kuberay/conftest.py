"""A strict reader of manifests: a field that the API doesn't know is an error, in built-in kinds and in CRDs."""

import json
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

CRDS = Path(__file__).parent.parent / "tools" / "deploy" / "crds"
KUBERNETES = "1.36"  # what kuberay/cluster/eksctl.yaml makes
# Renderings that aren't committed: what may be chosen beside the scenarios.
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
    "bucket": ("local-cpu", ["models.url=s3://models/cpu"]),
}


def closed(schema):
    """A CRD's structural schema as a JSON schema in which unknown fields are errors."""
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
                # a structural schema says nothing of an object's own metadata, which is every kind's
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft7Validator(schema)
    return found


def refusals_of(manifest):
    """What a strict API server would refuse it for; empty where it takes it."""
    validator = custom_kinds().get((manifest["apiVersion"], manifest["kind"]))
    if validator:
        metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
        return refusals_of(metadata) + [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(manifest)
        ]
    try:
        kubernetes_validate.validate(json.loads(json.dumps(manifest)), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as problem:
        return [f"{'.'.join(map(str, problem.path))}: {problem.message}"]
    return []


@pytest.fixture(scope="session")
def refusals():
    return refusals_of


@pytest.fixture(params=[*scenario_names(), *CHOICES])
def scenario(request):
    name, overrides = CHOICES.get(request.param, (request.param, []))
    return read_scenario(name, overrides)


@pytest.fixture
def manifests(scenario):
    return render(scenario)


@pytest.fixture
def service(manifests):
    (found,) = (one for one in manifests if one["kind"] == "RayService")
    return found


@pytest.fixture
def serve(service):
    return yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.fixture
def options(serve):
    """Of each deployment, by name."""
    (application,) = serve["applications"]
    return {one["name"]: one for one in application["deployments"]}


@pytest.fixture
def cluster(service):
    return service["spec"]["rayClusterConfig"]


@pytest.fixture
def groups(cluster):
    return {"head": cluster["headGroupSpec"]} | {one["groupName"]: one for one in cluster["workerGroupSpecs"]}


@pytest.fixture
def pods(groups):
    """What each group's pods are made of."""
    return {name: group["template"]["spec"] for name, group in groups.items()}
