"""What the options and the checks of scripts/install and scripts/cleanup refuse, warn of, and print in a dry run."""

import os

import pytest
import yaml

from serve_app.tools.deploy.aws.checks import count_vcpus
from serve_app.tools.deploy.aws.scenarios import PLACEHOLDER_BUCKET
from serve_app.tools.deploy.scenarios.scenario import SCENARIOS, read_scenario, scenario_names

GPU_QUOTA = "L-DB2E81BA"
LIMIT_OF_8 = "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 8 allows"


@pytest.fixture
def scenario_file(tmp_path):
    """A scenario of the user's own: a committed one and what differs."""

    def write(**changes):
        path = tmp_path / "mine.yaml"
        content = yaml.safe_load((SCENARIOS / "yolo-gpu.yaml").read_text())
        path.write_text(yaml.safe_dump(content | changes))
        return str(path)

    return write


def test_wrong_options_are_refused_before_anything_is_created(account):
    for arguments, message in (
        (["--only=buckets"], "no step 'buckets'; did you mean 'bucket'?; the steps are check, bucket, images"),
        (["--only=bucket", "--from=cluster"], "--only and --from can't be combined: use one of them"),
        (["--cluster-name=My_Cluster"], "--cluster-name must have 2 to 28 characters of a-z, 0-9 and -, "),
        (["--region=oregon"], "--region must be an AWS region such as us-west-2, got 'oregon'"),
        (["--region=xx-foo-1"], "--region must be an AWS region such as us-west-2, got 'xx-foo-1'"),
        (["--bucket=A"], "--bucket must have 3 to 63 characters of a-z, 0-9 and -, got 'A'"),
        (["--scenario=yolo-gpo"], "did you mean 'yolo-gpu'?"),
        (["--scenario=local-cpu"], "local-cpu runs on kind or minikube (scripts/deploy up local-cpu), not on AWS"),
        (["--set=images.tags=2"], "images: unknown key 'tags'; did you mean 'tag'?"),
        (["--models=/nowhere", "--only=check"], "no model repository at /nowhere; build it with `make models TARGET="),
        (["--scenario=llm-gpu", "--no-models"], "the scenario llm-gpu loads gated models: set HF_TOKEN to a Hugging"),
        (["--only=access"], "no cluster serve-app-eks in us-west-2; create it with --from cluster"),
    ):
        ended = account.install(*arguments)
        assert ended.code == 1, arguments
        assert message in ended.err, arguments
    assert [line for line in account.aws.requests if line.startswith("PUT")] == []


def test_a_missing_or_old_tool_is_named_with_where_to_get_it_with_a_faked_eksctl(account, monkeypatch):
    account.set_eksctl_version("0.199.0")
    ended = account.install("--only=check")
    assert "step check: eksctl must be 0.230 or newer, got 0.199; upgrade it: https://eksctl.io" in ended.err
    account.set_eksctl_version("none")
    assert "`eksctl version` prints no version; reinstall eksctl" in account.install("--only=check").err
    monkeypatch.setenv("PATH", os.defpath)
    for ended in (account.install("--only=check"), account.cleanup("--yes")):
        assert ended.code == 1
        assert "step check: eksctl is not on the PATH; install it: https://eksctl.io/installation" in ended.err
    assert account.deploys == []


def test_credentials_and_regions_that_do_not_work_are_refused_with_what_to_do(account, monkeypatch):
    account.fail(request="GetCallerIdentity")
    assert "AWS sts get_caller_identity: AccessDenied: no; your credentials don't allow" in account.install().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "check your credentials (aws sso login) and the region" in account.install().err
    monkeypatch.setenv("AWS_PROFILE", "nope")
    ended = account.install("--dry-run")
    assert ended.code == 1
    assert "error: The config profile (nope) could not be found; `aws configure list-profiles` lists" in ended.err


def test_a_quota_below_what_the_scenario_needs_is_a_warning(account):
    check = lambda: account.install("--only=check")  # noqa: E731
    assert "warning" not in check().out
    account.aws.quotas[GPU_QUOTA] = 64.0
    assert "it starts, but can't scale to its maximum of 128" in check().out
    account.aws.quotas[GPU_QUOTA] = 8.0
    ended = check()
    assert ended.code == 0
    assert "'Running On-Demand G and VT instances' is 8 vCPUs, the scenario starts with 16: it can't start" in ended.out
    assert LIMIT_OF_8 in ended.out
    assert f"servicequotas/home/services/ec2/quotas/{GPU_QUOTA}" in ended.out
    account.fail(request="GetServiceQuota")
    ended = check()
    assert ended.code == 0
    assert "warning: can't read the quota 'Running On-Demand G and VT instances': AWS service-quotas" in ended.out


def test_vcpus_are_those_of_the_instances_that_fit():
    scenario = read_scenario("yolo-gpu", ["workers.vision.cpu=14", "workers.vision.min=2", "workers.vision.max=3"])
    assert count_vcpus(scenario, ("g5", "g6")) == (32, 48)
    assert count_vcpus(scenario, ("p5",)) == (0, 0)


def test_a_kubeconfig_of_other_clusters_or_of_something_else_is_not_replaced(account):
    account.kubeconfig.parent.mkdir()
    shared = yaml.safe_dump({"contexts": [{"name": "serve-app-eks"}, {"name": "production"}]})
    for text, message in (
        (shared, f"--kubeconfig {account.kubeconfig} has other contexts ('production'), which would be lost"),
        *((text, "exists and is not a kubeconfig; name another file") for text in ("only words", "a: [", "[1, 2]")),
    ):
        account.kubeconfig.write_text(text)
        for command in (account.install, account.cleanup):
            ended = command()
            assert ended.code == 1, text
            assert message in ended.err, text
            assert account.kubeconfig.read_text() == text
    assert (account.aws.requests, account.calls) == ([], [])


def test_a_dry_run_prints_every_call_and_makes_none(account):
    ended = account.cleanup("--dry-run", "--delete-models", "--delete-images")
    assert "dry run: nothing was changed" in ended.out
    assert "aws s3 delete_bucket Bucket=serve-app-eks-models-111122223333-us-west-2" in ended.out
    for scenario in set(scenario_names()) - {"local-cpu"}:
        ended = account.install("--dry-run", f"--scenario={scenario}", "--cluster-name=other", "--region=eu-west-1")
        assert ended.code == 0, ended.output
        for call in (
            "aws s3 create_bucket Bucket=other-models-111122223333-eu-west-1",
            "aws ecr create_repository repositoryName=serve-app/vision",
            "aws cloudformation create_stack StackName=Karpenter-other",
            "run eksctl create cluster --config-file - < kuberay/cluster/eksctl.yaml",
            "run helm upgrade --install kuberay-operator kuberay-operator --repo",
            "kubernetes apply NodePool/g5",
            f"scripts/deploy up {scenario} ",
        ):
            assert call in ended.out, scenario
    assert (account.aws.requests, account.calls, account.deploys) == ([], [], [])


def test_the_registry_and_bucket_of_a_file_or_an_option_are_kept_and_missing_ones_filled_in(account, scenario_file):
    ours = "--set=images.registry=111122223333.dkr.ecr.us-west-2.amazonaws.com/serve-app"
    bucket = "--set=models.url=s3://serve-app-eks-models-111122223333-us-west-2/models"
    theirs = {"images": {"registry": "registry.example/team"}, "models": {"url": "s3://ours/models"}}
    for changes, options, expected in (
        ({}, [], [ours, bucket]),
        ({}, ["--set=images.registry=registry.example/team"], ["--set=images.registry=registry.example/team", bucket]),
        (theirs, [], []),
        (theirs, ["--bucket=mine"], ["--set=models.url=s3://mine/models"]),
    ):
        out = account.install("--dry-run", f"--scenario={scenario_file(**changes)}", *options).out
        (up,) = [line for line in out.splitlines() if "scripts/deploy up" in line]
        assert {word for word in up.split() if word.startswith("--set")} == set(expected)
        foreign = "warning: models.url is s3://ours/models, but pods may read only serve-app-eks-models-111122223333"
        assert (foreign in out) == (changes == theirs and not options)


def test_every_committed_scenario_has_the_placeholder_for_its_bucket():
    urls = [scenario.models.url for scenario in map(read_scenario, scenario_names()) if scenario.models]
    assert {url.split("/")[2] for url in urls} == {PLACEHOLDER_BUCKET}
