"""What a person says stands: kubeconfigs, registries, buckets and names of their own."""

import boto3
import pytest
import yaml

from serve_app.tools.deploy.aws.services import NO_BUCKET
from serve_app.tools.deploy.scenarios.scenario import SCENARIOS, read_scenario, scenario_names

BUCKET = "serve-app-eks-models-123456789012-us-west-2"
THEIRS = {"contexts": [{"name": "serve-app-eks"}, {"name": "production"}]}


@pytest.fixture
def kubeconfig(tmp_path):
    path = tmp_path / "kube" / "config"
    path.parent.mkdir()
    return path


@pytest.fixture
def own(tmp_path):
    """A scenario file of one's own, from a committed one and what differs."""

    def write(**more):
        path = tmp_path / "mine.yaml"
        content = yaml.safe_load((SCENARIOS / "yolo-gpu.yaml").read_text())
        path.write_text(yaml.safe_dump(content | more))
        return str(path)

    return write


@pytest.mark.parametrize("command", ["install", "cleanup"])
def test_a_kubeconfig_with_other_clusters_is_refused_before_anything_is_made(command, run, aws, tools, kubeconfig):
    kubeconfig.write_text(yaml.safe_dump(THEIRS))
    ran = run(command)
    assert ran.code == 1
    assert f"error: --kubeconfig {kubeconfig} also has 'production', which would be lost" in ran.err
    assert "config.serve-app-eks" in ran.err
    assert yaml.safe_load(kubeconfig.read_text()) == THEIRS
    assert (aws.requests, tools.calls) == ([], [])


@pytest.mark.parametrize("text", ["only words", "a: [", "[1, 2]"])
def test_a_file_that_is_no_kubeconfig_is_not_replaced(text, run, aws, kubeconfig):
    kubeconfig.write_text(text)
    ran = run("install")
    assert ran.code == 1
    assert f"--kubeconfig {kubeconfig} is there and is no kubeconfig" in ran.err
    assert kubeconfig.read_text() == text


def test_a_step_alone_goes_to_its_own_cluster_whatever_the_kubeconfig_says_with_a_faked_eksctl(
    run, aws, tools, kubernetes, kubeconfig
):
    assert run("install", "--only=cluster").code == 0
    elsewhere = {"name": "serve-app-eks", "cluster": {"server": "http://127.0.0.1:9"}}
    kubeconfig.write_text(yaml.safe_dump({"clusters": [elsewhere], "contexts": [{"name": "serve-app-eks"}]}))
    ran = run("install", "--only=secrets")
    assert ran.code == 0, ran.everything
    assert yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"] == f"{aws.url}/kubernetes"


def test_pods_of_another_name_get_the_right_to_read_models_with_a_faked_eksctl(run, aws, tools):
    assert run("install", "--only=cluster", "--set=name=robot").code == 0
    assert aws.identities[-1] == {"namespace": "serve-app", "serviceAccount": "robot"}
    assert run("install", "--only=cluster").code == 0
    created = [yaml.safe_load(call["stdin"]) for call in tools.calls if call["argv"][0] == "create"]
    roles = [config["iam"]["podIdentityAssociations"][-1].get("roleName") for config in created]
    assert roles == [None, "serve-app-eks-models"]


def test_images_of_another_registry_are_not_looked_for_on_ecr_with_a_faked_eksctl_and_helm(whole, aws, scripts):
    ran = whole("--set=images.registry=registry.example/team")
    assert ran.code == 0, ran.everything
    assert "images are missing" not in ran.everything
    assert "--set=images.registry=registry.example/team" in scripts()[0]
    assert [line for line in aws.requests if "DescribeImages" in line] == []


def test_a_file_of_ones_own_keeps_its_registry_and_bucket_with_a_faked_eksctl_and_helm(whole, own, scripts, tmp_path):
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="ours")
    file = own(images={"registry": "registry.example/team"}, models={"url": "s3://ours/models"})
    ran = whole(f"--scenario={file}")
    assert ran.code == 0, ran.everything
    assert "--set" not in scripts()[0]
    assert f"warning: pods may read {BUCKET}, and models.url is s3://ours/models: see --bucket" in ran.out
    kept = read_scenario(str(tmp_path / "sites" / "serve-app-eks.mine.yaml"))
    assert (kept.images.registry, kept.models.url) == ("registry.example/team", "s3://ours/models")


def test_what_a_file_of_ones_own_leaves_open_is_filled_in(run, own, aws, tools):
    ran = run("install", "--dry-run", f"--scenario={own()}")
    assert "--set=images.registry=111122223333.dkr.ecr.us-west-2.amazonaws.com/serve-app" in ran.out
    assert "--set=models.url=s3://serve-app-eks-models-111122223333-us-west-2/models" in ran.out


def test_a_bucket_on_the_command_line_goes_before_that_of_a_file(run, own, aws, tools):
    file = own(models={"url": "s3://ours/models"})
    assert "--set=models.url=s3://mine/models" in run("install", "--dry-run", f"--scenario={file}", "--bucket=mine").out


def test_every_committed_scenario_leaves_its_bucket_open():
    urls = [scenario.models.url for scenario in map(read_scenario, scenario_names()) if scenario.models]
    assert urls
    assert {url.split("/")[2] for url in urls} == {NO_BUCKET}


def test_a_profile_that_does_not_exist_is_named(run, aws, tools, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nope")
    ran = run("install", "--dry-run")
    assert ran.code == 1
    assert "error: The config profile (nope) could not be found; `aws configure list-profiles` shows" in ran.err


def test_a_region_that_aws_does_not_have_is_named(run, aws, tools):
    ran = run("install", "--dry-run", "--region=xx-foo-1")
    assert ran.code == 1
    assert "error: --region 'xx-foo-1' is no region of AWS's; us-west-2 is one" in ran.err
