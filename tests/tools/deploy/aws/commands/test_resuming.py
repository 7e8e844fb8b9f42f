"""What scripts/install and scripts/cleanup make of clusters that were left half made or half deleted."""

import boto3
import pytest
import yaml

STACK = "eksctl-serve-app-eks-cluster"


def stacks():
    return [one["StackName"] for one in boto3.client("cloudformation").describe_stacks()["Stacks"]]


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED"])
def test_a_stack_without_its_cluster_is_deleted_and_made_anew_with_a_faked_eksctl(status, run, aws, tools):
    aws.make_stack(STACK, status)
    ran = run("install", "--only=cluster")
    assert ran.code == 0, ran.everything
    assert f"the stack {STACK} is {status}, and there is no cluster: it is deleted and made anew" in ran.out
    assert [line.split()[1] for line in tools.lines("eksctl")] == ["delete", "create"]
    assert boto3.client("eks").list_clusters()["clusters"] == ["serve-app-eks"]


def test_a_stack_that_is_being_made_is_waited_for(run, aws, tools, monkeypatch):
    monkeypatch.setattr("serve_app.tools.deploy.aws.cluster.TIMEOUT_S", 0.1)
    aws.make_stack(STACK, "ROLLBACK_IN_PROGRESS")
    ran = run("install", "--only=cluster")
    assert ran.code == 1
    assert f"waited 0.1 s until the stack {STACK} is at rest" in ran.err
    assert tools.calls == []


def test_cleanup_deletes_a_stack_whose_cluster_is_gone_with_a_faked_eksctl(run, aws, tools):
    aws.make_stack(STACK, "DELETE_FAILED")
    ran = run("cleanup", "--yes", "--only=cluster")
    assert ran.code == 0, ran.everything
    assert len(tools.lines("eksctl delete cluster --name=serve-app-eks")) == 1
    assert stacks() == []
    assert run("cleanup", "--yes", "--only=cluster").code == 0
    assert len(tools.lines("eksctl delete cluster")) == 1


@pytest.mark.parametrize("status", ["CREATING", "FAILED", "DELETING"])
def test_cleanup_does_nothing_inside_a_cluster_that_does_not_answer_with_a_faked_eksctl(
    status, installed, run, aws, tools, scripts
):
    aws.set_status(status)
    before = scripts()
    ran = run("cleanup", "--yes")
    assert ran.code == 0, ran.everything
    assert ran.out.count(f"the cluster serve-app-eks is {status}: nothing to do") == 3
    assert scripts() == before
    assert tools.lines("helm uninstall") == []
    assert boto3.client("eks").list_clusters()["clusters"] == []


def test_a_step_inside_a_cluster_that_is_not_ready_says_so_with_a_faked_eksctl(run, aws, tools):
    assert run("install", "--only=cluster").code == 0
    aws.set_status("CREATING")
    ran = run("install", "--only=access")
    assert ran.code == 1
    assert "the cluster serve-app-eks is CREATING: --from cluster waits for it" in ran.err


def test_a_node_group_and_an_addon_that_failed_are_made_anew_with_a_faked_eksctl(run, aws, tools):
    assert run("install", "--only=cluster").code == 0
    aws.set_status("CREATE_FAILED", "system")
    aws.failed_addons = ["coredns"]
    ran = run("install", "--only=cluster")
    assert ran.code == 0, ran.everything
    made = [call for call in tools.calls if call["argv"][1:2] != ["cluster"]]
    assert [call["argv"][:2] for call in made] == [
        ["create", "addon"],
        ["delete", "nodegroup"],
        ["create", "nodegroup"],
    ]
    assert [one["name"] for one in yaml.safe_load(made[0]["stdin"])["addons"]] == ["coredns"]
    assert "--name=system" in made[1]["argv"]
    described = boto3.client("eks").describe_nodegroup(clusterName="serve-app-eks", nodegroupName="system")
    assert described["nodegroup"]["status"] == "ACTIVE"


def test_a_node_group_of_which_only_the_stack_is_left_is_deleted_first_with_a_faked_eksctl(run, aws, tools):
    assert run("install", "--only=cluster").code == 0
    boto3.client("eks").delete_nodegroup(clusterName="serve-app-eks", nodegroupName="system")
    aws.make_stack("eksctl-serve-app-eks-nodegroup-system", "ROLLBACK_COMPLETE")
    assert run("install", "--only=cluster").code == 0
    assert [line.split()[1:3] for line in tools.lines("nodegroup")] == [
        ["delete", "nodegroup"],
        ["create", "nodegroup"],
    ]
