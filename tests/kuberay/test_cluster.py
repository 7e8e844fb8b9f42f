"""What stands in kuberay/cluster: strict by schema, safe by rule, and one with the code and the scenarios."""

import json
import re

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from serve_app.tools.deploy.api.target import labels_of
from serve_app.tools.deploy.aws.charts import CHARTS
from serve_app.tools.deploy.aws.cluster import cluster_config
from serve_app.tools.deploy.aws.site import ACCOUNT, CLUSTER, FILES, REGION, Site, bucket_of
from serve_app.tools.deploy.monitoring import GENERATED, monitoring_document, monitoring_manifests
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

APPLIED = ("karpenter.nodepools.yaml", "karpenter.nodeclasses.yaml", "storageclass.gp3.yaml", "monitoring.yaml")
POLICIES = sorted(FILES.glob("iam.*.json"))
WRITTEN = sorted(path for path in FILES.rglob("*.yaml") if path != GENERATED)
OTHER = Site("mine", "eu-west-1", "999988887777", "my-models")

# The keys of eksctl's schema (pkg/apis/eksctl.io/v1alpha5/assets/schema.json, where every object is closed) that may
# stand in our file; below a `*` anything may, as in the schema.
ANYTHING = "*"
NODE_GROUP = {
    "name", "amiFamily", "instanceType", "desiredCapacity", "minSize", "maxSize", "privateNetworking", "volumeType",
    "volumeSize", "volumeEncrypted", "disableIMDSv1", "disablePodIMDS",
}  # fmt: skip
EKSCTL = {
    "apiVersion": None,
    "kind": None,
    "metadata": {"name": None, "region": None, "version": None, "tags": ANYTHING},
    "upgradePolicy": {"supportType": None},
    "autoModeConfig": {"enabled": None},
    "iam": {
        "withOIDC": None,
        "podIdentityAssociations": {
            "namespace": None,
            "serviceAccountName": None,
            "roleName": None,
            "permissionPolicyARNs": None,
            "permissionPolicy": ANYTHING,
            "wellKnownPolicies": {"awsLoadBalancerController": None},
        },
    },
    "accessConfig": {"authenticationMode": None, "accessEntries": {"principalARN": None, "type": None}},
    "vpc": {
        "cidr": None,
        "nat": {"gateway": None},
        "clusterEndpoints": {"publicAccess": None, "privateAccess": None},
    },
    "addonsConfig": {"autoApplyPodIdentityAssociations": None},
    "addons": {"name": None, "configurationValues": None, "resolveConflicts": None},
    "managedNodeGroups": dict.fromkeys(NODE_GROUP) | {"labels": ANYTHING, "updateConfig": {"maxUnavailable": None}},
    "cloudWatch": {"clusterLogging": {"enableTypes": None, "logRetentionInDays": None}},
}
# Of the charts whose values.yaml was read: kuberay-operator 1.7 and nvidia-device-plugin 0.19.
CHART_KEYS = {
    "kuberay-operator.yaml": {
        "image", "watchNamespace", "featureGates", "batchScheduler", "reconcileConcurrency", "leaderElectionEnabled",
        "metrics", "resources", "nodeSelector",
    },
    "nvidia-device-plugin.yaml": {"tolerations", "gfd", "resources"},
}  # fmt: skip


def documents(name):
    return [one for one in yaml.safe_load_all((FILES / name).read_text()) if one]


def unknown_keys(given, known, path=""):
    if isinstance(given, list):
        return [found for one in given for found in unknown_keys(one, known, path)]
    if not isinstance(given, dict) or known == ANYTHING:
        return []
    found = [f"{path}{key}" for key in given if key not in (known or {})]
    return found + [
        one for key in given if key in (known or {}) for one in unknown_keys(given[key], known[key], f"{path}{key}.")
    ]


def pools():
    return {one["metadata"]["name"]: one for one in documents("karpenter.nodepools.yaml")}


@pytest.mark.parametrize("name", APPLIED)
def test_every_manifest_is_taken_by_a_strict_server(name, refusals):
    found = documents(name)
    assert found
    assert [refusal for one in found for refusal in refusals(one)] == []


def test_a_field_that_karpenter_does_not_know_is_an_error(refusals):
    pool = pools()["g5"]
    pool["spec"]["disruption"]["consolidateBefore"] = "10m"
    assert any("consolidateBefore" in refusal for refusal in refusals(pool))


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(FILES)))
def test_yaml_is_tidy(path):
    rules = YamlLintConfig(
        "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 0}, "
        "comments: {min-spaces-from-content: 1}}}"
    )
    assert [str(problem) for problem in linter.run(path.read_text(), rules)] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(FILES)))
def test_a_file_says_first_what_it_is_for(path):
    assert path.read_text().startswith("# ")


def test_eksctl_knows_every_key_of_its_file():
    (config,) = documents("eksctl.yaml")
    assert unknown_keys(config, EKSCTL) == []
    assert unknown_keys(config | {"nodegroups": []}, EKSCTL) == ["nodegroups"]


def test_the_cluster_is_current_private_and_enforces_network_policies():
    (config,) = documents("eksctl.yaml")
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
    (config,) = documents("eksctl.yaml")
    models = config["iam"]["podIdentityAssociations"][-1]
    committed = json.loads((FILES / "iam.model-bucket.read.json").read_text())
    assert models["permissionPolicy"] == committed
    actions = {action for statement in committed["Statement"] for action in statement["Action"]}
    assert actions == {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:GetObjectVersion"}


@pytest.mark.parametrize("scenario", scenario_names())
def test_the_pods_that_pull_models_are_those_that_may(scenario):
    (config,) = documents("eksctl.yaml")
    models = config["iam"]["podIdentityAssociations"][-1]
    manifests = yaml.safe_load_all((FILES.parent / f"rayservice.{scenario}.yaml").read_text())
    (service,) = [one for one in manifests if one["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
        pod = group["template"]["spec"]
        if "s3://" in json.dumps(pod):
            assert pod["serviceAccountName"] == models["serviceAccountName"]
    assert service["metadata"]["namespace"] == models["namespace"]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_a_policy_is_one_and_names_what_it_is_about(path):
    policy = json.loads(path.read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert all(bucket_of(CLUSTER, ACCOUNT, REGION) in resource for resource in resources)
        assert statement["Sid"]


def test_gpu_pools_hold_only_what_asks_for_gpus_and_end_only_what_is_empty():
    for name in ("g5", "g6", "p5"):
        spec = pools()[name]["spec"]
        template = spec["template"]
        assert template["metadata"]["labels"]["serve-app/pool"] == name
        assert template["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
        assert spec["disruption"]["consolidationPolicy"] == "WhenEmpty"
        assert spec["disruption"]["consolidateAfter"] == "10m"
        assert spec["disruption"]["budgets"]
        assert int(spec["limits"]["nvidia.com/gpu"]) >= 1
        # both would end pods that must not be moved
        assert template["spec"]["expireAfter"] == "Never"
        assert "terminationGracePeriod" not in template["spec"]
        wanted = {one["key"]: one.get("values") for one in template["spec"]["requirements"]}
        assert wanted["karpenter.sh/capacity-type"] == ["on-demand"]
        assert all(family.startswith(name) for family in wanted["karpenter.k8s.aws/instance-family"])


def test_every_pool_has_its_class_and_every_class_is_pinned_and_closed():
    classes = {one["metadata"]["name"]: one["spec"] for one in documents("karpenter.nodeclasses.yaml")}
    assert {one["spec"]["template"]["spec"]["nodeClassRef"]["name"] for one in pools().values()} == set(classes)
    for name, spec in classes.items():
        (term,) = spec["amiSelectorTerms"]
        assert re.fullmatch(r"al2023@v20[0-9]{6}", term["alias"])
        assert spec["metadataOptions"] == {
            "httpEndpoint": "enabled",
            "httpTokens": "required",
            "httpPutResponseHopLimit": 1,
        }
        (disk,) = spec["blockDeviceMappings"]
        assert disk["ebs"]["encrypted"]
        assert 200 <= int(disk["ebs"]["volumeSize"].removesuffix("Gi")) <= 500
        assert disk["ebs"]["throughput"] >= 600  # below, parallel pull is slower than the plain one
        assert yaml.safe_load(spec["userData"])["spec"]["featureGates"] == {"FastImagePull": True}
        assert (spec.get("instanceStorePolicy") == "RAID0") == name.startswith("gpu")
        assert spec["subnetSelectorTerms"][0]["tags"]["karpenter.sh/discovery"] == CLUSTER


@pytest.mark.parametrize("scenario", scenario_names())
def test_every_pool_that_a_scenario_wants_is_there(scenario):
    wanted = read_scenario(scenario)
    groups = [wanted.head, *wanted.workers.values()]
    (config,) = documents("eksctl.yaml")
    known = {*pools(), config["managedNodeGroups"][0]["labels"]["serve-app/pool"]}
    assert {pool for group in groups for pool in group.pools} <= known


def test_charts_are_pinned_and_their_values_are_there():
    assert len({chart.release for chart in CHARTS}) == len(CHARTS)
    named = {chart.values for chart in CHARTS if chart.values}
    assert named == {path.name for path in (FILES / "helm").glob("*.yaml")}
    for chart in CHARTS:
        assert re.fullmatch(r"\d+\.\d+\.\d+", chart.version)
        assert chart.repository.startswith(("https://", "oci://"))


@pytest.mark.parametrize("name", sorted(CHART_KEYS))
def test_values_are_those_that_the_chart_has(name):
    (values,) = documents(f"helm/{name}")
    assert set(values) <= CHART_KEYS[name]


def test_the_operator_is_the_release_that_the_crds_are_of():
    (values,) = documents("helm/kuberay-operator.yaml")
    (chart,) = [one for one in CHARTS if one.release == "kuberay-operator"]
    assert values["image"]["tag"] == f"v{chart.version}" == "v1.7.0"
    assert {"name": "RayServiceIncrementalUpgrade", "enabled": True} in values["featureGates"]
    assert values["watchNamespace"] == ["serve-app"]
    assert values["metrics"]["serviceMonitor"]["enabled"]


def test_prometheus_takes_every_monitor_and_grafana_every_dashboard():
    (values,) = documents("helm/kube-prometheus-stack.yaml")
    spec = values["prometheus"]["prometheusSpec"]
    for selector in ("podMonitor", "serviceMonitor", "rule"):
        assert spec[f"{selector}SelectorNilUsesHelmValues"] is False
    assert spec["retention"]
    assert spec["storageSpec"]["volumeClaimTemplate"]["spec"]["storageClassName"] == "gp3"
    dashboards = values["grafana"]["sidecar"]["dashboards"]
    labels = {dashboards["label"]: dashboards["labelValue"]}
    made = [one for one in monitoring_manifests("serve-app", {}) if one["kind"] == "ConfigMap"]
    assert made
    assert all(one["metadata"]["labels"] == labels for one in made)
    assert values["grafana"]["admin"]["existingSecret"] == "grafana-admin"
    assert values["grafana"]["grafana.ini"]["security"]["allow_embedding"] is True


def test_roles_and_queue_have_one_name_everywhere():
    template = (FILES / "karpenter.cloudformation.yaml").read_text()
    (config,) = documents("eksctl.yaml")
    karpenter = config["iam"]["podIdentityAssociations"][0]
    policies = re.findall(r"ManagedPolicyName: (\S+)", template)
    assert [arn.rpartition("/")[2] for arn in karpenter["permissionPolicyARNs"]] == policies
    (role,) = re.findall(r"RoleName: (\S+)", template)
    assert config["accessConfig"]["accessEntries"][0]["principalARN"].endswith(f"role/{role}")
    assert {one["spec"]["role"] for one in documents("karpenter.nodeclasses.yaml")} == {role}
    (values,) = documents("helm/karpenter.yaml")
    assert f"QueueName: {values['settings']['interruptionQueue']}\n" in template
    assert values["serviceAccount"]["name"] == karpenter["serviceAccountName"]


def test_policies_of_karpenter_fit_into_what_iam_takes():
    """6,144 characters without white space each."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: "arn:aws:sqs:us-west-2:111122223333:" + "x" * 60)
    template = yaml.load((FILES / "karpenter.cloudformation.yaml").read_text(), Loader)
    policies = [one for one in template["Resources"].values() if one["Type"] == "AWS::IAM::ManagedPolicy"]
    assert len(policies) == 2
    for policy in policies:
        assert len(re.sub(r"\s", "", json.dumps(policy["Properties"]["PolicyDocument"]))) < 6144


@pytest.mark.parametrize("path", [*WRITTEN, *POLICIES], ids=lambda path: str(path.relative_to(FILES)))
def test_nothing_of_the_committed_names_is_left_for_another_installation(path):
    text = OTHER.read(str(path.relative_to(FILES)))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert [name for name in (CLUSTER, REGION, ACCOUNT) if name in body] == []


def test_a_service_in_another_namespace_reads_models_there():
    config = cluster_config(OTHER, "robot", "elsewhere")
    models = config["iam"]["podIdentityAssociations"][-1]
    assert (models["namespace"], models["serviceAccountName"]) == ("elsewhere", "robot")
    assert models["permissionPolicy"]["Statement"][0]["Resource"] == "arn:aws:s3:::my-models"


def test_monitoring_is_equal_to_its_source():
    assert GENERATED.read_text() == monitoring_document("serve-app", labels_of("serve-app")), (
        "configs/monitoring has changed: python -m serve_app.tools.deploy.monitoring"
    )
