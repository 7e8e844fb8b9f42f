"""What pods may do, write, read and reach."""

import re

import yaml


def containers_of(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


def pods_of(rendering, *kinds):
    others = [one["spec"]["template"]["spec"] for kind in kinds for one in rendering.of_kind(kind)]
    return [*rendering.pods.items(), *(("other", pod) for pod in others)]


def test_pods_run_confined_and_the_autoscaler_alone_has_a_kubernetes_token(renderings):
    for rendering in renderings:
        for name, pod in pods_of(rendering, "StatefulSet", "Job"):
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] == (name == "head" and rendering.scenario.autoscales)
            assert not any("hostPath" in volume for volume in pod.get("volumes", ()))
            for container in containers_of(pod):
                confined = container["securityContext"]
                assert (confined["allowPrivilegeEscalation"], confined["readOnlyRootFilesystem"]) == (False, True)
                assert confined["capabilities"] == {"drop": ["ALL"]}
                assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        (namespace,) = rendering.of_kind("Namespace")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_mounted_volumes_exist_and_paths_in_variables_are_on_writable_ones(renderings):
    for rendering in renderings:
        for name, pod in pods_of(rendering, "Job"):
            volumes = {one["name"] for one in pod.get("volumes", ())}
            for container in containers_of(pod):
                assert {one["name"] for one in container["volumeMounts"]} <= volumes
                if name != "other":
                    writable = {one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")}
                    assert "/tmp" in writable
                    paths = [str(one.get("value", "")) for one in container["env"]]
                    assert [path for path in paths if path[:1] == "/" and not path.startswith(tuple(writable))] == []


def test_secrets_are_referred_to_by_name_and_never_included(renderings):
    for rendering in renderings:
        assert rendering.of_kind("Secret") == []
        text = yaml.safe_dump(rendering.manifests, default_flow_style=False)
        volumes = re.findall(r"secret:\n(?:\s+items:\n(?:\s+-? *(?:key|path): \S+\n)+)?\s+name: (\S+)", text)
        variables = re.findall(r"secretKeyRef:\n\s+key: \S+\n\s+name: (\S+)", text)
        assert {*volumes, *variables} == {key.secret for key in rendering.scenario.secrets}


def test_a_store_gives_every_secret_that_pods_refer_to(renderings):
    for rendering in renderings:
        given = {
            (one["spec"]["target"]["name"], data["secretKey"])
            for one in rendering.of_kind("ExternalSecret")
            for data in one["spec"]["data"]
            if data["remoteRef"] == {"key": one["metadata"]["name"], "property": data["secretKey"]}
        }
        wanted = {(one.secret, one.key) for one in rendering.scenario.secrets}
        assert given == (wanted if rendering.scenario.secret_store else set())


def test_secrets_reach_only_the_pods_that_need_them(renderings):
    for rendering in renderings:
        scenario = rendering.scenario
        for name, pod in rendering.pods.items():
            routers = name == "routers" or (name == "head" and "routers" not in scenario.workers)
            sources = [one for volume in pod["volumes"] for one in volume.get("projected", {}).get("sources", ())]
            mounted = {one["secret"]["name"] for one in sources}
            keys = {key.secret for key in (scenario.keys, scenario.admin_key) if key}
            assert mounted == (keys if routers else set())
            token = any(one["name"] == "HF_TOKEN" for one in pod["containers"][0]["env"])
            assert token == (bool(scenario.hub_token) and (name == "llm" or (name == "head" and scenario.head.works)))


def test_pods_keep_the_label_by_which_kuberay_finds_the_head(renderings):
    for rendering in renderings:
        for group in rendering.groups.values():
            assert "app.kubernetes.io/name" not in group["template"]["metadata"]["labels"]


def test_redis_is_reached_by_the_head_and_its_cleanup_job_alone(renderings):
    for rendering in renderings:
        store = rendering.scenario.head_store
        assert ("to-redis" in rendering.policies) == bool(store)
        if store:
            policy = rendering.policies["to-redis"]
            # KubeRay's Job has the labels of the head's template, and another node type
            labels = {"app.kubernetes.io/instance": rendering.scenario.name, "app.kubernetes.io/component": "head"}
            assert policy["podSelector"]["matchLabels"] == labels
            (rule,) = policy["egress"]
            assert [one["port"] for one in rule["ports"]] == [6380 if store.address else 6379]


def test_every_scenario_asks_for_keys(renderings):
    for rendering in renderings:
        assert rendering.scenario.keys
        (application,) = rendering.serve["applications"]
        assert application["args"]["router"]["keys_file"] == "/etc/serve_app/keys/keys.yaml"
