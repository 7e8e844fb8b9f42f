"""The Kubernetes API server of these tests, held to what a real one does with objects."""

import json
import shutil
import subprocess
import threading

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError

MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/apis/ray.io/v1/namespaces/default/rayservices"


def config_map(name, **more):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name} | more, "data": {"a": "1"}}


@pytest.fixture
def core(kubernetes):
    return client.CoreV1Api(kubernetes.client())


def refused(call, *arguments, **options):
    with pytest.raises(ApiException) as caught:
        call(*arguments, **options)
    return json.loads(caught.value.body)


def test_its_version_is_told_to_everybody(kubernetes):
    status, version = kubernetes.request("GET", "/version", token=None)
    assert (status, version["gitVersion"]) == (200, "v1.34.0")


def test_discovery_names_the_kinds_of_the_definitions(kubernetes):
    found = kubernetes.dynamic().resources.get(api_version="ray.io/v1", kind="RayService")
    assert (found.name, found.namespaced) == ("rayservices", True)


def test_without_its_definition_a_kind_is_unknown(kubernetes):
    kubernetes.control(reset={"crds": False})
    with pytest.raises(ResourceNotFoundError):
        kubernetes.dynamic().resources.get(api_version="ray.io/v1", kind="RayService")
    assert kubernetes.request("GET", SERVICES) == (404, "404 page not found\n")


def test_a_definition_that_is_created_makes_its_kind_known(kubernetes, rayservice):
    definition = kubernetes.object("CustomResourceDefinition", "rayservices.ray.io")
    kubernetes.control(reset={"crds": False})
    definition["metadata"] = {"name": definition["metadata"]["name"]}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, created = kubernetes.request("POST", path, definition)
    assert status == 201
    assert [one["type"] for one in created["status"]["conditions"]] == ["NamesAccepted", "Established"]
    assert kubernetes.request("POST", SERVICES, rayservice)[0] == 201
    kubernetes.request("DELETE", f"{path}/rayservices.ray.io")
    assert kubernetes.request("GET", f"{SERVICES}/tiny")[0] == 404


def test_an_object_is_created_read_replaced_and_deleted(kubernetes, core):
    created = core.create_namespaced_config_map("default", config_map("one"))
    assert created.metadata.uid
    assert created.metadata.creation_timestamp
    created.data = {"b": "2"}
    replaced = core.replace_namespaced_config_map("one", "default", created)
    assert replaced.data == {"b": "2"}
    assert int(replaced.metadata.resource_version) > int(created.metadata.resource_version)
    status, deleted = kubernetes.request("DELETE", f"{MAPS}/one")
    assert (status, deleted["status"], deleted["details"]["name"]) == (200, "Success", "one")
    missing = refused(core.read_namespaced_config_map, "one", "default")
    assert (missing["code"], missing["reason"]) == (404, "NotFound")
    assert missing["message"] == 'configmaps "one" not found'


def test_what_exists_is_not_created_again(core):
    core.create_namespaced_config_map("default", config_map("one"))
    twice = refused(core.create_namespaced_config_map, "default", config_map("one"))
    assert (twice["code"], twice["message"]) == (409, 'configmaps "one" already exists')


def test_who_writes_over_a_newer_version_is_refused(core):
    old = core.create_namespaced_config_map("default", config_map("one"))
    core.patch_namespaced_config_map("one", "default", {"data": {"a": "2"}})
    late = refused(core.replace_namespaced_config_map, "one", "default", old)
    assert (late["code"], late["reason"]) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in late["message"]


def test_a_namespace_has_to_be_there(core):
    nowhere = refused(core.create_namespaced_config_map, "nowhere", config_map("one"))
    assert (nowhere["code"], nowhere["message"]) == (404, 'namespaces "nowhere" not found')


@pytest.mark.parametrize(
    ("media", "patch"),
    [
        (
            "application/json-patch+json",
            [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "new"}],
        ),
        (
            "application/strategic-merge-patch+json",
            {"spec": {"template": {"spec": {"containers": [{"name": "kuberay-operator", "image": "new"}]}}}},
        ),
        (
            "application/merge-patch+json",
            {"spec": {"template": {"spec": {"containers": [{"name": "other", "image": "new"}]}}}},
        ),
    ],
)
def test_patches_are_understood_by_their_media_type(kubernetes, media, patch):
    path = "/apis/apps/v1/namespaces/kuberay-system/deployments/kuberay-operator"
    status, patched = kubernetes.request("PATCH", path, patch, media=media)
    assert status == 200
    assert [one["image"] for one in patched["spec"]["template"]["spec"]["containers"]] == ["new"]
    assert patched["metadata"]["generation"] == 2


def test_a_patch_of_another_media_type_is_refused(kubernetes):
    status, answer = kubernetes.request("PATCH", f"{MAPS}/one", {}, media="application/json")
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")


def test_selectors_choose(core):
    for name, tier in (("one", "a"), ("two", "b"), ("three", None)):
        core.create_namespaced_config_map("default", config_map(name, labels={"tier": tier} if tier else {}))

    def names(**selectors):
        return [item.metadata.name for item in core.list_namespaced_config_map("default", **selectors).items]

    assert names(label_selector="tier=a") == ["one"]
    assert names(label_selector="tier in (a, b),tier!=a") == ["two"]
    assert names(label_selector="!tier") == ["three"]
    assert names(field_selector="metadata.name=two") == ["two"]
    assert core.list_namespaced_config_map("default", limit=2).metadata._continue


def test_a_watch_tells_what_happens_from_a_version_on(core):
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("one", labels={"tier": "a"}))
    core.patch_namespaced_config_map("one", "default", {"data": {"a": "2"}})
    core.create_namespaced_config_map("default", config_map("other"))
    threading.Timer(0.2, core.delete_namespaced_config_map, ("one", "default")).start()
    seen = []
    watching = watch.Watch()
    options = {"resource_version": version, "label_selector": "tier=a", "timeout_seconds": 10}
    for event in watching.stream(core.list_namespaced_config_map, "default", **options):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watching.stop()
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_a_watch_from_a_forgotten_version_is_gone(kubernetes, core):
    version = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("one"))
    kubernetes.control(gone=True)
    with pytest.raises(ApiException) as caught:
        next(
            watch.Watch().stream(
                core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=5
            )
        )
    assert caught.value.status == 410


def test_unknown_fields_are_refused_where_it_is_strict_and_named_where_it_is_not(kubernetes, rayservice):
    rayservice["spec"]["colour"] = "red"
    status, answer = kubernetes.request("POST", f"{SERVICES}?fieldValidation=Strict", rayservice)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert answer["message"] == (
        'RayService in version "v1" cannot be handled as a RayService: strict decoding error: '
        'unknown field "spec.colour"'
    )
    status, created = kubernetes.request("POST", SERVICES, rayservice)
    assert (status, "colour" in created["spec"]) == (201, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rayVersion": 2}, "rayClusterConfig.rayVersion in body must be of type string"),
        ({"headGroupSpec": None}, "spec.rayClusterConfig.headGroupSpec"),
        (
            {"workerGroupSpecs": [{"groupName": "a"}]},
            "spec.rayClusterConfig.workerGroupSpecs[0].template: Required value",
        ),
    ],
)
def test_what_breaks_its_definition_is_invalid(kubernetes, rayservice, change, said):
    rayservice["spec"]["rayClusterConfig"] |= change
    status, answer = kubernetes.request("POST", SERVICES, rayservice)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["message"].startswith('RayService.ray.io "tiny" is invalid: ')
    assert said in answer["message"]
    assert answer["details"]["causes"]


def test_a_built_in_kind_is_held_to_its_schema(kubernetes):
    budget = {"metadata": {"name": "one"}, "spec": {"minAvailable": True, "selectr": {}}}
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    assert kubernetes.request("POST", path, budget)[0] == 422
    budget["spec"]["minAvailable"] = "50%"
    status, answer = kubernetes.request("POST", f"{path}?fieldValidation=Strict", budget)
    assert (status, 'unknown field "spec.selectr"' in answer["message"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (MAPS, {"metadata": {"name": "Upper"}}, "a lowercase RFC 1123 subdomain must consist of"),
        (MAPS, {"metadata": {}}, "metadata.name: Required value: name or generateName is required"),
        (MAPS, {"apiVersion": "apps/v1", "metadata": {"name": "a"}}, "does not match the expected API version (v1)"),
        (MAPS, {"metadata": {"name": "a", "namespace": "b"}}, "the namespace of the provided object does not match"),
    ],
)
def test_who_an_object_is_has_to_fit(kubernetes, path, body, said):
    status, answer = kubernetes.request("POST", path, body)
    assert status in (400, 422)
    assert said in answer["message"]


def test_a_dry_run_answers_and_keeps_nothing(core):
    answered = core.create_namespaced_config_map("default", config_map("one"), dry_run="All")
    assert answered.metadata.uid
    assert refused(core.read_namespaced_config_map, "one", "default")["code"] == 404


def test_the_next_requests_fail_where_a_test_asks_for_it(kubernetes):
    kubernetes.control(failing={"times": 1, "code": 503, "path": "configmaps"})
    assert kubernetes.request("GET", MAPS)[0] == 503
    assert kubernetes.request("GET", MAPS)[0] == 200
    seen = kubernetes.control(requests=True)["requests"]
    assert [one["user"] for one in seen if one["path"] == MAPS] == [None, "admin"]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed here")
def test_kubectl_applies_waits_reads_and_deletes(kubernetes, rayservice, tmp_path):
    manifest = tmp_path / "rayservice.json"
    manifest.write_text(json.dumps(rayservice))

    def kubectl(*arguments):
        command = ["kubectl", "--kubeconfig", kubernetes.kubeconfig, "--cache-dir", str(tmp_path / "cache"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert kubectl("apply", "-f", str(manifest)).stdout == "rayservice.ray.io/tiny created\n"
    waited = kubectl("wait", "--for=condition=Ready", "rayservice/tiny", "--timeout=20s")
    assert waited.stdout == "rayservice.ray.io/tiny condition met\n", waited.stderr
    assert "tiny-" in kubectl("logs", "-l", "ray.io/node-type=head").stdout
    assert kubectl("diff", "-f", str(manifest)).returncode == 0
    wrong = manifest.with_name("wrong.json")
    wrong.write_text(json.dumps(rayservice | {"spec": rayservice["spec"] | {"colour": "red"}}))
    assert 'unknown field "spec.colour"' in kubectl("apply", "-f", str(wrong)).stderr
    assert 'rayservice.ray.io "tiny" deleted' in kubectl("delete", "-f", str(manifest), "--timeout=20s").stdout
