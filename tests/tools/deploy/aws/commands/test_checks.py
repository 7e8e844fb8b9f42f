"""What scripts/install refuses or warns of before it makes anything."""

import os

import pytest

from serve_app.tools.deploy.aws.checks import vcpus
from serve_app.tools.deploy.scenarios.scenario import read_scenario

MESSAGE = "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 8 allows"


def test_a_tool_that_is_missing_is_named_with_where_to_get_it(run, aws, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    ran = run("install", "--only=check")
    assert ran.code == 1
    assert "eksctl is not on the PATH: https://eksctl.io/installation" in ran.err


def test_a_tool_that_is_too_old_is_refused_with_a_faked_eksctl(run, aws, tools):
    (tools.notes / "eksctl.version").write_text("0.199.0")
    ran = run("install", "--only=check")
    assert ran.code == 1
    assert "eksctl 0.199 is too old, 0.230 is needed" in ran.err


def test_a_quota_that_is_too_small_is_told_with_what_it_will_look_like_with_faked_quotas(run, aws, tools):
    aws.quotas["L-DB2E81BA"] = 8.0
    ran = run("install", "--only=check")
    assert ran.code == 0
    assert "may run 8 vCPUs of 'Running On-Demand G and VT instances', the scenario begins with 16" in ran.out
    assert "it can't start" in ran.out
    assert MESSAGE in ran.out
    assert "servicequotas/home/services/ec2/quotas/L-DB2E81BA" in ran.out


def test_a_quota_that_suffices_for_the_first_replica_only_is_told_with_faked_quotas(run, aws, tools):
    aws.quotas["L-DB2E81BA"] = 64.0
    assert "it starts, and can't grow to the 128" in run("install", "--only=check").out


def test_a_quota_that_suffices_is_no_matter_with_faked_quotas(run, aws, tools):
    assert "warning" not in run("install", "--only=check").out


def test_a_quota_that_may_not_be_read_keeps_nobody_from_installing(run, aws, tools):
    aws.refused = ["GetServiceQuota"]
    ran = run("install", "--only=check")
    assert ran.code == 0
    assert "warning: the quota 'Running On-Demand G and VT instances' is not known" in ran.out


def test_vcpus_are_those_of_the_machines_that_fit():
    scenario = read_scenario("yolo-gpu", ["workers.vision.cpu=14", "workers.vision.min=2", "workers.vision.max=3"])
    assert vcpus(scenario, ("g5", "g6")) == (32, 48)
    assert vcpus(scenario, ("p5",)) == (0, 0)


def test_credentials_that_are_refused_are_told(run, aws, tools):
    aws.refused = ["GetCallerIdentity"]
    ran = run("install")
    assert ran.code == 1
    assert "AWS sts get_caller_identity: AccessDenied" in ran.err


def test_without_an_aws_that_answers_it_says_what_to_do(run, aws, tools, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ran = run("install")
    assert ran.code == 1
    assert "are there credentials (aws sso login), and is the region right?" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only=buckets"], "no step 'buckets'; did you mean 'bucket'?; the steps are check, bucket, images"),
        (["--only=bucket", "--from=cluster"], "--only and --from exclude each other"),
        (["--cluster-name=My_Cluster"], "--cluster-name 'My_Cluster': 2 to 28 of a-z, 0-9 and -"),
        (["--region=oregon"], "--region 'oregon' is no region; us-west-2 is one"),
        (["--bucket=A"], "--bucket 'A': 3 to 63 of a-z, 0-9 and -"),
        (["--scenario=yolo-gpo"], "did you mean 'yolo-gpu'?"),
        (["--scenario=local-cpu"], "local-cpu is for kind or minikube, where scripts/deploy brings it up"),
        (["--set=images.tags=2"], "images: unknown key 'tags'; did you mean 'tag'?"),
        (["--models=/nowhere", "--only=check"], "no model repository at /nowhere: make models TARGET=gpu builds it"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_made(arguments, message, run, aws, tools):
    ran = run("install", *arguments)
    assert ran.code == 1
    assert message in ran.err
    assert [line for line in aws.requests if line.startswith("PUT")] == []


def test_a_kubeconfig_that_cannot_be_written_is_told_with_a_faked_eksctl(run, aws, tools, tmp_path):
    (tmp_path / "kube").write_text("a file where a folder should be")
    assert run("install", "--only=cluster").code == 0
    ran = run("install", "--only=access")
    assert ran.code == 1
    assert "step access: --kubeconfig" in ran.err
    assert "can't be written: " in ran.err


def test_a_step_without_its_cluster_says_which_one_makes_it(run, aws, tools):
    ran = run("install", "--only=access")
    assert ran.code == 1
    assert "no cluster serve-app-eks in us-west-2: --from cluster makes it" in ran.err
