"""The files of kuberay/cluster: valid by schema, safe by rule, and consistent with the code and the scenarios."""

import json
import re

import yaml

from serve_app.tools.deploy.api.target import labels_of
from serve_app.tools.deploy.aws.addons import CHARTS
from serve_app.tools.deploy.aws.cluster import cluster_config
from serve_app.tools.deploy.aws.installation import (
    ACCOUNT,
    CLUSTER,
    FILES,
    REGION,
    Installation,
    default_bucket,
)
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.monitoring import GENERATED, monitoring_document, monitoring_manifests, ray_dashboards
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

APPLIED = ("karpenter.nodepools.yaml", "karpenter.nodeclasses.yaml", "storageclass.gp3.yaml", "monitoring.yaml")
POLICIES = sorted(FILES.glob("iam.*.json"))
WRITTEN = sorted(path for path in FILES.rglob("*.yaml") if path != GENERATED)
OTHER = Installation("mine", "eu-west-1", "999988887777", "my-models")

# The keys of eksctl's schema (pkg/apis/eksctl.io/v1alpha5/assets/schema.json, where every object is closed) that our
# file may use; `*` where the schema allows any.
NODE_GROUP = (
    "name amiFamily instanceType desiredCapacity minSize maxSize privateNetworking volumeType volumeSize "
    "volumeEncrypted disableIMDSv1 disablePodIMDS"
)
EKSCTL = {
    "apiVersion": None,
    "kind": None,
    "metadata": {"name": None, "region": None, "version": None, "tags": "*"},
    "upgradePolicy": {"supportType": None},
    "autoModeConfig": {"enabled": None},
    "iam": {
        "withOIDC": None,
        "podIdentityAssociations": {
            "namespace": None,
            "serviceAccountName": None,
            "roleName": None,
            "permissionPolicyARNs": None,
            "permissionPolicy": "*",
            "wellKnownPolicies": {"awsLoadBalancerController": None},
        },
    },
    "accessConfig": {"authenticationMode": None, "accessEntries": {"principalARN": None, "type": None}},
    "vpc": {"cidr": None, "nat": {"gateway": None}, "clusterEndpoints": {"publicAccess": None, "privateAccess": None}},
    "addonsConfig": {"autoApplyPodIdentityAssociations": None},
    "addons": {"name": None, "configurationValues": None, "resolveConflicts": None},
    "managedNodeGroups": dict.fromkeys(NODE_GROUP.split()) | {"labels": "*", "updateConfig": {"maxUnavailable": None}},
    "cloudWatch": {"clusterLogging": {"enableTypes": None, "logRetentionInDays": None}},
}
# Of the charts whose values.yaml was read: kuberay-operator 1.7 and nvidia-device-plugin 0.19.
CHART_KEYS = {
    "kuberay-operator": "image watchNamespace featureGates batchScheduler reconcileConcurrency leaderElectionEnabled "
    "metrics resources nodeSelector",
    "nvidia-device-plugin": "tolerations gfd resources",
}


def documents(name):
    return [one for one in yaml.safe_load_all((FILES / name).read_text()) if one]


def document(name):
    (found,) = documents(name)
    return found


def by_name(name):
    return {one["metadata"]["name"]: one["spec"] for one in documents(name)}


def unknown_keys(given, known, path=""):
    if isinstance(given, list):
        return [found for one in given for found in unknown_keys(one, known, path)]
    if not isinstance(given, dict) or known == "*":
        return []
    known = known or {}
    below = [one for key in given if key in known for one in unknown_keys(given[key], known[key], f"{path}{key}.")]
    return [f"{path}{key}" for key in given if key not in known] + below


def test_a_strict_server_accepts_every_manifest_and_refuses_unknown_fields(refusals):
    for name in APPLIED:
        assert documents(name), name
        assert [refusal for one in documents(name) for refusal in refusals(one)] == [], name
    pool = documents("karpenter.nodepools.yaml")[0]
    pool["spec"]["disruption"]["consolidateBefore"] = "10m"
    assert any("consolidateBefore" in refusal for refusal in refusals(pool))


def test_every_file_begins_with_its_purpose_and_holds_no_committed_name_once_filled_in():
    for path in (*WRITTEN, *POLICIES):
        assert path.suffix == ".json" or path.read_text().startswith("# "), path
        lines = [line for line in OTHER.read(str(path.relative_to(FILES))).splitlines() if not line.startswith("#")]
        assert [name for name in (CLUSTER, REGION, ACCOUNT) if name in "\n".join(lines)] == [], path


def test_eksctl_knows_every_key_of_its_file():
    config = document("eksctl.yaml")
    assert unknown_keys(config, EKSCTL) == []
    assert unknown_keys(config | {"nodegroups": []}, EKSCTL) == ["nodegroups"]


def test_the_cluster_is_current_private_and_enforces_network_policies():
    config = document("eksctl.yaml")
    assert tuple(map(int, config["metadata"]["version"].split("."))) >= (1, 33)
    assert config["autoModeConfig"] == {"enabled": False}
    addons = {one["name"]: one for one in config["addons"]}
    assert json.loads(addons["vpc-cni"]["configurationValues"]) == {"enableNetworkPolicy": "true"}
    assert {"coredns", "kube-proxy", "eks-pod-identity-agent", "aws-ebs-csi-driver", "metrics-server"} <= set(addons)
    (group,) = config["managedNodeGroups"]
    assert (group["instanceType"], group["desiredCapacity"]) == ("m7i.xlarge", 2)
    assert group["privateNetworking"]
    assert group["disablePodIMDS"]


def test_pods_may_read_models_and_no_more():
    models = document("eksctl.yaml")["iam"]["podIdentityAssociations"][-1]
    committed = json.loads((FILES / "iam.model-bucket.read.json").read_text())
    assert models["permissionPolicy"] == committed
    actions = {action for statement in committed["Statement"] for action in statement["Action"]}
    assert actions == {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:GetObjectVersion"}
    for path in POLICIES:
        policy = json.loads(path.read_text())
        assert policy["Version"] == "2012-10-17"
        for statement in policy["Statement"]:
            resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
            assert all(default_bucket(CLUSTER, ACCOUNT, REGION) in resource for resource in resources), path
            assert statement["Sid"]


def test_the_pods_of_every_scenario_have_their_node_pool_and_those_that_pull_models_may(renderings):
    config = document("eksctl.yaml")
    models = config["iam"]["podIdentityAssociations"][-1]
    pools = {*by_name("karpenter.nodepools.yaml"), config["managedNodeGroups"][0]["labels"]["serve-app/pool"]}
    for rendering in (one for one in renderings if one.name in scenario_names()):
        scenario = rendering.scenario
        assert {pool for group in (scenario.head, *scenario.workers.values()) for pool in group.pools} <= pools
        assert scenario.namespace == models["namespace"]
        accounts = {pod["serviceAccountName"] for pod in rendering.pods.values() if "s3://" in json.dumps(pod)}
        assert accounts <= {models["serviceAccountName"]}


def test_a_service_in_another_namespace_reads_models_there():
    models = cluster_config(OTHER, "robot", "elsewhere")["iam"]["podIdentityAssociations"][-1]
    assert (models["namespace"], models["serviceAccountName"]) == ("elsewhere", "robot")
    assert models["permissionPolicy"]["Statement"][0]["Resource"] == "arn:aws:s3:::my-models"


def test_gpu_pools_accept_only_pods_that_ask_for_gpus_and_end_only_empty_machines():
    pools = by_name("karpenter.nodepools.yaml")
    for name in ("g5", "g6", "p5"):
        template, disruption = pools[name]["template"], pools[name]["disruption"]
        assert template["metadata"]["labels"]["serve-app/pool"] == name
        assert template["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
        assert (disruption["consolidationPolicy"], disruption["consolidateAfter"]) == ("WhenEmpty", "10m")
        assert disruption["budgets"]
        assert int(pools[name]["limits"]["nvidia.com/gpu"]) >= 1
        # both would end pods that must not be moved
        assert template["spec"]["expireAfter"] == "Never"
        assert "terminationGracePeriod" not in template["spec"]
        wanted = {one["key"]: one.get("values") for one in template["spec"]["requirements"]}
        assert wanted["karpenter.sh/capacity-type"] == (["on-demand"] if name == "p5" else ["spot", "on-demand"])
        assert all(family.startswith(name) for family in wanted["karpenter.k8s.aws/instance-family"])


def test_every_pool_has_a_node_class_that_is_pinned_encrypted_and_closed():
    classes = by_name("karpenter.nodeclasses.yaml")
    pools = by_name("karpenter.nodepools.yaml").values()
    assert {pool["template"]["spec"]["nodeClassRef"]["name"] for pool in pools} == set(classes)
    metadata = {"httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1}
    for name, spec in classes.items():
        (term,) = spec["amiSelectorTerms"]
        assert re.fullmatch(r"al2023@v20[0-9]{6}", term["alias"])
        assert spec["metadataOptions"] == metadata
        (disk,) = spec["blockDeviceMappings"]
        assert disk["ebs"]["encrypted"]
        assert 200 <= int(disk["ebs"]["volumeSize"].removesuffix("Gi")) <= 500
        assert disk["ebs"]["throughput"] >= 600  # below, parallel pulls are slower than plain ones
        assert yaml.safe_load(spec["userData"])["spec"]["featureGates"] == {"FastImagePull": True}
        assert (spec.get("instanceStorePolicy") == "RAID0") == name.startswith("gpu")
        assert spec["subnetSelectorTerms"][0]["tags"]["karpenter.sh/discovery"] == CLUSTER


def test_charts_are_pinned_and_their_values_exist():
    assert len({chart.release for chart in CHARTS}) == len(CHARTS)
    values = {chart.values for chart in CHARTS if chart.values}
    assert values == {f"helm/{path.name}" for path in (FILES / "helm").glob("*.yaml")}
    for chart in CHARTS:
        assert re.fullmatch(r"\d+\.\d+\.\d+", chart.version)
        assert chart.repository.startswith(("https://", "oci://"))
    for name, keys in CHART_KEYS.items():
        assert set(document(f"helm/{name}.yaml")) <= set(keys.split())


def test_the_operator_is_the_release_that_the_crds_are_of():
    values = document("helm/kuberay-operator.yaml")
    (chart,) = [one for one in CHARTS if one.release == "kuberay-operator"]
    assert values["image"]["tag"] == f"v{chart.version}" == "v1.7.0"
    assert {"name": "RayServiceIncrementalUpgrade", "enabled": True} in values["featureGates"]
    assert values["watchNamespace"] == ["serve-app"]
    assert values["metrics"]["serviceMonitor"]["enabled"]


def test_prometheus_finds_every_monitor_and_grafana_every_dashboard():
    values = document("helm/kube-prometheus-stack.yaml")
    spec = values["prometheus"]["prometheusSpec"]
    for selector in ("podMonitor", "serviceMonitor", "rule"):
        assert spec[f"{selector}SelectorNilUsesHelmValues"] is False
    assert spec["retention"]
    assert spec["storageSpec"]["volumeClaimTemplate"]["spec"]["storageClassName"] == "gp3"
    dashboards = values["grafana"]["sidecar"]["dashboards"]
    applied = [*monitoring_manifests("serve-app", {}), *ray_dashboards("serve-app", {})]
    labels = [one["metadata"]["labels"] for one in applied if one["kind"] == "ConfigMap"]
    assert len(labels) > 8
    assert all(one == {dashboards["label"]: dashboards["labelValue"]} for one in labels)
    assert values["grafana"]["admin"]["existingSecret"] == "grafana-admin"
    assert values["grafana"]["grafana.ini"]["security"]["allow_embedding"] is True
    assert GENERATED.read_text() == monitoring_document("serve-app", labels_of("serve-app")), (
        "configs/monitoring has changed: run python -m serve_app.tools.deploy.monitoring"
    )


def test_rays_dashboard_finds_its_panels_in_grafana_and_every_port_of_the_head_is_scraped():
    texts = [text for one in ray_dashboards("serve-app", {}) for text in one["data"].values()]
    uids = {json.loads(text)["uid"] for text in texts}
    assert uids >= {"rayDefaultDashboard", "rayServeDashboard", "rayServeDeploymentDashboard"}
    assert max(map(len, texts)) < 900_000, "what a ConfigMap takes"
    monitor, *_ = monitoring_manifests("serve-app", {})
    scraped = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    *others, service = render(read_scenario("yolo-gpu"))
    container = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert scraped <= ports.keys()
    (opened,) = [one for one in others if one["metadata"]["name"] == "serve-app-metrics"]
    assert {one["port"] for one in opened["spec"]["ingress"][0]["ports"]} == {ports[name] for name in scraped}


def test_karpenters_roles_and_queue_have_the_same_names_in_every_file():
    template = (FILES / "karpenter.cloudformation.yaml").read_text()
    config, values = document("eksctl.yaml"), document("helm/karpenter.yaml")
    karpenter = config["iam"]["podIdentityAssociations"][0]
    policies = re.findall(r"ManagedPolicyName: (\S+)", template)
    assert [arn.rpartition("/")[2] for arn in karpenter["permissionPolicyARNs"]] == policies
    (role,) = re.findall(r"RoleName: (\S+)", template)
    assert config["accessConfig"]["accessEntries"][0]["principalARN"].endswith(f"role/{role}")
    assert {spec["role"] for spec in by_name("karpenter.nodeclasses.yaml").values()} == {role}
    assert f"QueueName: {values['settings']['interruptionQueue']}\n" in template
    assert values["serviceAccount"]["name"] == karpenter["serviceAccountName"]


def test_karpenters_policies_are_short_enough_for_iam():
    """At most 6,144 characters without white space each."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: "arn:aws:sqs:us-west-2:111122223333:" + "x" * 60)
    template = yaml.load((FILES / "karpenter.cloudformation.yaml").read_text(), Loader)
    policies = [one for one in template["Resources"].values() if one["Type"] == "AWS::IAM::ManagedPolicy"]
    assert len(policies) == 2
    for policy in policies:
        assert len(re.sub(r"\s", "", json.dumps(policy["Properties"]["PolicyDocument"]))) < 6144
