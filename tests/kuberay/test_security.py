"""What pods may do, write, read and reach."""

import re

import yaml


def containers_of(spec):
    return [*spec.get("initContainers", ()), *spec["containers"]]


def test_a_pod_may_do_nothing_that_it_need_not(manifests, scenario, pods):
    others = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] in ("StatefulSet", "Job")]
    for name, spec in [*pods.items(), *(("other", spec) for spec in others)]:
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] == (name == "head" and scenario.autoscales)
        assert not any("hostPath" in volume for volume in spec.get("volumes", ()))
        for container in containers_of(spec):
            confined = container["securityContext"]
            assert (confined["allowPrivilegeEscalation"], confined["readOnlyRootFilesystem"]) == (False, True)
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    (namespace,) = (one for one in manifests if one["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_all_that_is_written_goes_to_a_volume(pods):
    for spec in pods.values():
        for container in containers_of(spec):
            writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
            assert "/tmp" in writable
            for variable in container["env"]:
                value = str(variable.get("value", ""))
                if value.startswith("/"):
                    assert value.startswith(tuple(writable)), variable


def test_volumes_that_are_mounted_are_there(manifests, pods):
    others = [one["spec"]["template"]["spec"] for one in manifests if one["kind"] == "Job"]
    for spec in [*pods.values(), *others]:
        there = {one["name"] for one in spec.get("volumes", ())}
        for container in containers_of(spec):
            assert {one["name"] for one in container["volumeMounts"]} <= there


def test_secrets_are_named_and_never_there(manifests, scenario):
    assert not any(one["kind"] == "Secret" for one in manifests)
    named = {key.secret for key in scenario.secrets}
    text = yaml.safe_dump(manifests, default_flow_style=False)
    found = set(re.findall(r"secretName: (\S+)", text)) | set(
        re.findall(r"secretKeyRef:\n\s+key: \S+\n\s+name: (\S+)", text)
    )
    assert found == named


def test_pods_leave_the_label_by_which_kuberay_finds_the_head(groups):
    for group in groups.values():
        assert "app.kubernetes.io/name" not in group["template"]["metadata"]["labels"]


def test_secrets_reach_only_the_pods_that_read_them(scenario, pods):
    for name, spec in pods.items():
        routers = name == "routers" or (name == "head" and "routers" not in scenario.workers)
        mounted = any("secret" in volume for volume in spec["volumes"])
        assert mounted == (bool(scenario.admin_key) and routers)
        token = any(one["name"] == "HF_TOKEN" for one in spec["containers"][0]["env"])
        assert token == (bool(scenario.hub_token) and (name == "llm" or (name == "head" and scenario.head.works)))


def test_the_store_of_the_heads_state_is_reached_by_head_and_clean_up_job_alone(manifests, scenario):
    policies = {
        one["metadata"]["name"].removeprefix(f"{scenario.name}-"): one["spec"]
        for one in manifests
        if one["kind"] == "NetworkPolicy"
    }
    assert ("to-redis" in policies) == bool(scenario.head_store)
    if scenario.head_store:
        # KubeRay's Job has the labels of the head's template, and another node type
        labels = policies["to-redis"]["podSelector"]["matchLabels"]
        assert labels == {"app.kubernetes.io/instance": scenario.name, "app.kubernetes.io/component": "head"}
        (rule,) = policies["to-redis"]["egress"]
        assert [one["port"] for one in rule["ports"]] == [6380 if scenario.head_store.address else 6379]
