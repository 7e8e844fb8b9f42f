"""KubeRay at play in the tests' Kubernetes API server: what it makes of a RayService."""

import yaml

SERVICES = "/apis/ray.io/v1/namespaces/default/rayservices"
MERGE = "application/merge-patch+json"


def test_a_service_comes_up_by_kuberays_states(kubernetes, tiny):
    kubernetes.control(pace=0.2)
    tiny.apply()
    first = kubernetes.until(lambda: tiny.condition("Ready"))
    assert (first["status"], first["reason"]) == ("False", "Initializing")
    kubernetes.control(pace=0.03)
    deploying = kubernetes.until(lambda: tiny.status()["pendingServiceStatus"].get("applicationStatuses"))
    assert deploying["app"]["status"] == "DEPLOYING"
    kubernetes.until(lambda: tiny.status()["serviceStatus"] == "Running")
    now = tiny.status()
    assert tiny.condition("Ready")["reason"] == "NonZeroServeEndpoints"
    assert tiny.condition("UpgradeInProgress")["reason"] == "NoPendingCluster"
    assert now["pendingServiceStatus"] == {}
    application = now["activeServiceStatus"]["applicationStatuses"]["app"]
    assert application["status"] == "RUNNING"
    assert set(application["serveDeploymentStatuses"]) == {"router", "vision", "baseline"}


def test_what_it_makes_has_kuberays_names_labels_and_events(kubernetes, tiny):
    tiny.apply()
    cluster = tiny.ready()["activeServiceStatus"]["rayClusterName"]
    assert len(cluster) == len("tiny-12345")
    names = {one["metadata"]["name"] for one in kubernetes.objects("Service", "default")}
    assert names == {f"{cluster}-head-svc", "tiny-head-svc", "tiny-serve-svc"}
    head, *workers = kubernetes.objects("Pod", "default", f"ray.io/cluster={cluster}")
    assert head["metadata"]["name"].startswith(f"{cluster}-head-")
    assert head["metadata"]["labels"]["ray.io/serve"] == "true"
    assert [one["metadata"]["name"][: -len("12345")] for one in workers] == [f"{cluster}-vision-worker-"] * 2
    assert workers[0]["spec"]["initContainers"][-1]["name"] == "wait-gcs-ready"
    kubernetes.until(lambda: kubernetes.object("RayService", "tiny")["status"]["numServeEndpoints"] == 3)
    assert {"CreatedRayCluster", "UpdatedServeApplications", "CreatedService"} <= tiny.events("tiny")
    assert {"CreatedHeadPod", "CreatedWorkerPod"} <= tiny.events(cluster)
    steps = {"Scheduled", "Pulling", "Pulled", "Created", "Started"}
    assert steps <= tiny.events(workers[0]["metadata"]["name"])


def test_another_serve_configuration_is_taken_in_place(kubernetes, tiny):
    tiny.apply()
    before = tiny.ready()
    tiny.apply(serveConfigV2=yaml.safe_dump({"applications": [{"name": "other"}]}))
    kubernetes.until(lambda: "other" in tiny.status()["activeServiceStatus"].get("applicationStatuses", {}))
    kubernetes.until(
        lambda: tiny.status()["activeServiceStatus"]["applicationStatuses"]["other"]["status"] == "RUNNING"
    )
    now = tiny.status()
    assert now["activeServiceStatus"]["rayClusterName"] == before["activeServiceStatus"]["rayClusterName"]
    assert now["observedGeneration"] == 2


def change_image(service):
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = "ray:2"


def test_another_cluster_configuration_makes_a_new_cluster_and_moves_over(kubernetes, tiny):
    tiny.apply()
    old = tiny.ready()["activeServiceStatus"]["rayClusterName"]
    change_image(tiny.body)
    tiny.apply()
    kubernetes.until(lambda: tiny.condition("UpgradeInProgress")["reason"] == "BothActivePendingClustersExist")
    assert tiny.status()["activeServiceStatus"]["rayClusterName"] == old
    kubernetes.until(lambda: tiny.condition("UpgradeInProgress")["reason"] == "NoPendingCluster")
    new = tiny.status()["activeServiceStatus"]["rayClusterName"]
    assert new != old
    assert tiny.condition("Ready")["status"] == "True"
    service = kubernetes.object("Service", "tiny-serve-svc", "default")
    assert service["spec"]["selector"] == {"ray.io/cluster": new, "ray.io/serve": "true"}
    kubernetes.until(lambda: [one["metadata"]["name"] for one in kubernetes.objects("RayCluster")] == [new])
    kubernetes.until(lambda: not kubernetes.objects("Pod", "default", f"ray.io/cluster={old}"))
    assert {"UpdatedService", "DeletedRayCluster"} <= tiny.events("tiny")


def test_traffic_moves_in_steps_where_that_is_wished(kubernetes, tiny):
    options = {"stepSizePercent": 5, "intervalSeconds": 1, "maxSurgePercent": 100, "gatewayClassName": "istio"}
    tiny.apply(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade", "clusterUpgradeOptions": options})
    old = tiny.ready()["activeServiceStatus"]["rayClusterName"]
    change_image(tiny.body)
    tiny.apply()
    routed = kubernetes.until(lambda: tiny.status()["pendingServiceStatus"].get("trafficRoutedPercent"))
    assert 5 <= routed <= 100
    kubernetes.until(lambda: tiny.status()["activeServiceStatus"]["rayClusterName"] != old)
    assert tiny.status()["activeServiceStatus"]["trafficRoutedPercent"] == 100


def test_without_an_upgrade_strategy_nothing_happens(kubernetes, tiny):
    tiny.apply(upgradeStrategy={"type": "None"})
    tiny.ready()
    change_image(tiny.body)
    tiny.apply()
    kubernetes.control(turns=10)
    assert len(kubernetes.objects("RayCluster")) == 1


def test_a_group_that_is_added_at_the_end_joins_the_cluster(kubernetes, tiny):
    tiny.apply()
    tiny.ready()
    groups = tiny.body["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    groups.append(groups[0] | {"groupName": "more", "replicas": 1})
    tiny.apply()
    kubernetes.until(lambda: len(tiny.pods("more")) == 1)
    assert len(kubernetes.objects("RayCluster")) == 1


def test_a_head_that_is_lost_is_told_the_applications_again(kubernetes, tiny):
    tiny.apply()
    cluster = tiny.ready()["activeServiceStatus"]["rayClusterName"]
    kubernetes.control(delete_pod="-head-")
    kubernetes.until(lambda: "applicationStatuses" not in tiny.status()["activeServiceStatus"])
    kubernetes.until(lambda: tiny.status()["activeServiceStatus"].get("applicationStatuses"))
    assert tiny.status()["activeServiceStatus"]["rayClusterName"] == cluster


def test_token_authentication_has_its_secret(kubernetes, tiny):
    tiny.body["spec"]["rayClusterConfig"]["authOptions"] = {"mode": "token"}
    tiny.apply()
    cluster = tiny.ready()["activeServiceStatus"]["rayClusterName"]
    assert list(kubernetes.object("Secret", cluster, "default")["data"]) == ["auth_token"]
    variables = {one["name"] for one in tiny.pods("vision")[0]["spec"]["containers"][0]["env"]}
    assert variables == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def test_deleting_it_takes_all_away(kubernetes, tiny):
    tiny.apply()
    tiny.ready()
    kubernetes.request("DELETE", f"{SERVICES}/tiny")
    for kind in ("RayCluster", "Service", "Pod", "EndpointSlice", "Endpoints"):
        kubernetes.until(lambda kind=kind: not kubernetes.objects(kind, "default"))


def test_a_suspended_one_runs_nothing(kubernetes, tiny):
    tiny.apply()
    tiny.ready()
    tiny.apply(suspend=True)
    kubernetes.until(lambda: tiny.condition("Suspended").get("status") == "True")
    kubernetes.until(lambda: not kubernetes.objects("Pod", "default"))
    tiny.apply(suspend=False)
    assert tiny.ready()["serviceStatus"] == "Running"
