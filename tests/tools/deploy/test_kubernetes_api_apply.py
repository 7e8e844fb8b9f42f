"""The Kubernetes API server of these tests, held to what a real one does with who applies, who may, and who goes."""

import pytest
from kubernetes import client

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = "/api/v1/namespaces/default/configmaps"
APPLY = "application/apply-patch+yaml"


@pytest.fixture
def apply(kubernetes):
    """(status, body) of a server-side apply."""

    def applied(path, body, manager="one", query="", **options):
        return kubernetes.request("PATCH", f"{path}?fieldManager={manager}{query}", body, media=APPLY, **options)

    return applied


def config_map(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}, "data": data}


def deployment(**container):
    labels = {"app": "web"}
    pod = {"containers": [{"name": "web", **container}]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def test_applying_creates_changes_and_takes_away(apply):
    status, created = apply(f"{MAPS}/map", config_map(a="1", b="1"))
    assert (status, created["data"]) == (201, {"a": "1", "b": "1"})
    managed = created["metadata"]["managedFields"][0]
    assert (managed["manager"], managed["operation"]) == ("one", "Apply")
    assert managed["fieldsV1"] == {"f:data": {"f:a": {}, "f:b": {}}}
    status, changed = apply(f"{MAPS}/map", config_map(a="2"))
    assert (status, changed["data"]) == (200, {"a": "2"})


def test_applying_the_same_again_changes_nothing(apply):
    first = apply(f"{MAPS}/map", config_map(a="1"))[1]
    again = apply(f"{MAPS}/map", config_map(a="1"))[1]
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_field_of_another_manager_is_a_conflict_that_names_it(apply):
    apply(f"{MAPS}/map", config_map(a="1"))
    status, answer = apply(f"{MAPS}/map", config_map(a="2"), manager="two")
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == 'Apply failed with 1 conflict: conflict with "one" using v1: .data.a'
    assert [cause["reason"] for cause in answer["details"]["causes"]] == ["FieldManagerConflict"]


def test_force_takes_a_field_over(apply):
    apply(f"{MAPS}/map", config_map(a="1", b="1"))
    status, taken = apply(f"{MAPS}/map", config_map(a="2"), manager="two", query="&force=true")
    assert (status, taken["data"]) == (200, {"a": "2", "b": "1"})
    # the first gave b up, and a isn't its own any more
    assert apply(f"{MAPS}/map", config_map())[1]["data"] == {"a": "2"}


def test_a_field_that_two_managers_want_alike_stays_while_one_does(apply):
    apply(f"{MAPS}/map", config_map(a="1"))
    assert apply(f"{MAPS}/map", config_map(a="1"), manager="two")[0] == 200
    assert apply(f"{MAPS}/map", config_map())[1]["data"] == {"a": "1"}


def test_what_was_changed_by_hand_is_a_conflict_too(apply, kubernetes):
    apply(f"{MAPS}/map", config_map(a="1"))
    path = f"{MAPS}/map?fieldManager=kubectl-edit"
    kubernetes.request("PATCH", path, {"data": {"a": "3"}}, media="application/merge-patch+json")
    status, answer = apply(f"{MAPS}/map", config_map(a="2"))
    assert status == 409
    assert 'conflict with "kubectl-edit" using v1 at ' in answer["message"]


def test_items_of_lists_with_keys_are_applied_one_by_one(apply, kubernetes):
    apply(f"{DEPLOYMENTS}/web", deployment(image="a", env=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]))
    other = deployment(image="a", env=[{"name": "C", "value": "1"}])
    assert apply(f"{DEPLOYMENTS}/web", other, manager="two")[0] == 200
    kept = apply(f"{DEPLOYMENTS}/web", deployment(image="a", env=[{"name": "B", "value": "2"}]))[1]
    container = kept["spec"]["template"]["spec"]["containers"][0]
    assert [(one["name"], one["value"]) for one in container["env"]] == [("B", "2"), ("C", "1")]
    assert kept["metadata"]["generation"] == 3


def test_a_field_that_the_kind_does_not_have_can_not_be_applied(apply):
    status, answer = apply(f"{DEPLOYMENTS}/web", deployment(image="a", colour="red"))
    assert status == 500
    assert answer["message"] == (
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): "
        ".spec.template.spec.containers[0].colour: field not declared in schema"
    )


def test_applying_needs_a_manager(kubernetes):
    status, answer = kubernetes.request("PATCH", f"{MAPS}/map", config_map(), media=APPLY)
    assert (status, "fieldManager: Required value" in answer["message"]) == (422, True)


def test_a_dry_run_of_an_apply_keeps_nothing(apply, kubernetes):
    assert apply(f"{MAPS}/map", config_map(a="1"), query="&dryRun=All")[0] == 201
    assert kubernetes.request("GET", f"{MAPS}/map")[0] == 404


@pytest.mark.parametrize("token", [None, "unknown"])
def test_who_is_not_known_is_unauthorized(kubernetes, token):
    status, answer = kubernetes.request("GET", MAPS, token=token)
    assert (status, answer["message"]) == (401, "Unauthorized")


def test_who_may_not_is_told_what(kubernetes, apply):
    rule = {"verbs": ["get", "list", "patch"], "groups": [""], "resources": ["configmaps"], "namespaces": ["default"]}
    kubernetes.control(token={"token": "reader", "user": "jane", "rules": [rule]})
    assert kubernetes.request("GET", MAPS, token="reader")[0] == 200
    status, answer = kubernetes.request("POST", "/apis/ray.io/v1/namespaces/default/rayservices", {}, token="reader")
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert answer["message"] == (
        'rayservices.ray.io is forbidden: User "jane" cannot create resource "rayservices" '
        'in API group "ray.io" in the namespace "default"'
    )
    cluster = kubernetes.request("GET", "/api/v1/nodes", token="reader")[1]["message"]
    assert cluster.endswith('cannot list resource "nodes" in API group "" at the cluster scope')
    status, answer = apply(f"{MAPS}/map", config_map(a="1"), token="reader")
    assert (status, 'cannot create resource "configmaps"' in answer["message"]) == (403, True)


def test_a_review_tells_what_one_may(kubernetes):
    kubernetes.control(token={"token": "reader", "rules": [{"verbs": ["get"], "resources": ["pods/log"]}]})
    reviews = client.AuthorizationV1Api(kubernetes.client("reader"))

    def allowed(**asked):
        body = {"spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", **asked}}}
        return reviews.create_self_subject_access_review(body).status.allowed

    assert allowed(verb="get", subresource="log")
    assert not allowed(verb="get")


def test_what_is_owned_goes_with_its_owner(kubernetes):
    owner = kubernetes.request("POST", MAPS, config_map())[1]["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "map", "uid": owner["uid"]}
    owned = {"metadata": {"name": "owned", "ownerReferences": [reference]}}
    kubernetes.request("POST", MAPS, owned)
    _, left = kubernetes.request("DELETE", f"{MAPS}/map?propagationPolicy=Foreground")
    assert left["metadata"]["finalizers"] == ["foregroundDeletion"]
    kubernetes.until(lambda: kubernetes.request("GET", f"{MAPS}/map")[0] == 404)
    assert kubernetes.request("GET", f"{MAPS}/owned")[0] == 404


def test_an_orphan_stays(kubernetes):
    owner = kubernetes.request("POST", MAPS, config_map())[1]["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "map", "uid": owner["uid"]}
    kubernetes.request("POST", MAPS, {"metadata": {"name": "owned", "ownerReferences": [reference]}})
    kubernetes.request("DELETE", f"{MAPS}/map", {"propagationPolicy": "Orphan"})
    kubernetes.control(turns=3)
    assert kubernetes.request("GET", f"{MAPS}/owned")[1]["metadata"]["ownerReferences"] == []


def test_a_finalizer_holds_until_it_is_taken_away(kubernetes):
    body = config_map()
    body["metadata"]["finalizers"] = ["test/hold"]
    kubernetes.request("POST", MAPS, body)
    assert kubernetes.request("DELETE", f"{MAPS}/map")[1]["metadata"]["deletionTimestamp"]
    kubernetes.control(turns=3)
    assert kubernetes.request("GET", f"{MAPS}/map")[0] == 200
    patch = {"metadata": {"finalizers": None}}
    kubernetes.request("PATCH", f"{MAPS}/map", patch, media="application/merge-patch+json")
    assert kubernetes.request("GET", f"{MAPS}/map")[0] == 404


def test_a_namespace_takes_what_is_in_it_along(kubernetes):
    kubernetes.request("POST", "/api/v1/namespaces", {"metadata": {"name": "mine"}})
    inside = "/api/v1/namespaces/mine/configmaps"
    body = config_map()
    body["metadata"]["finalizers"] = ["test/hold"]
    kubernetes.request("POST", inside, body)
    assert kubernetes.request("DELETE", "/api/v1/namespaces/mine")[1]["status"]["phase"] == "Terminating"
    status, answer = kubernetes.request("POST", inside, {"metadata": {"name": "late"}})
    assert status == 403
    assert "unable to create new content in namespace mine because it is being terminated" in answer["message"]
    patch = {"metadata": {"finalizers": None}}
    kubernetes.request("PATCH", f"{inside}/map", patch, media="application/merge-patch+json")
    kubernetes.until(lambda: kubernetes.request("GET", "/api/v1/namespaces/mine")[0] == 404)
