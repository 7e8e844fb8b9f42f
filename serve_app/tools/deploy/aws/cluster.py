"""The EKS cluster, made by eksctl: created whole, or completed where an earlier run left it unfinished."""

from typing import Any

import yaml

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.cloudformation import stack_status
from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.aws.runner import Runner

TIMEOUT_S = 1800
NOT_FOUND = ("ResourceNotFoundException",)
FILE = "kuberay/cluster/eksctl.yaml"
ANSWERING = ("ACTIVE", "UPDATING")  # states in which the cluster's API can be reached


def create_cluster(runner: Runner, installation: Installation, service_account: str, namespace: str) -> None:
    name, config = installation.cluster, cluster_config(installation, service_account, namespace)
    _delete_orphaned_stack(runner, installation)
    status = cluster_status(runner, installation)
    if status is None:
        _create(runner, "cluster", config, FILE)
        status = cluster_status(runner, installation)
    if status == "FAILED":
        raise ConfigurationError(
            f"the cluster {name} is FAILED: delete it with `scripts/cleanup --from cluster`, then install again"
        )
    if status == "DELETING":
        raise ConfigurationError(f"the cluster {name} is being deleted: install again when it is gone")
    runner.wait(f"the cluster {name} is ACTIVE", lambda: cluster_status(runner, installation) == "ACTIVE", TIMEOUT_S)
    if not runner.dry_run:
        _create_missing_parts(runner, installation, config)


def delete_cluster(runner: Runner, installation: Installation) -> None:
    """Also where only eksctl's stack is left, whose networks and addresses cost money."""
    if not runner.dry_run and _is_deleted(runner, installation):
        return
    # Without eviction: all pods go, so disruption budgets would only hold up the nodes.
    options = [f"--name={installation.cluster}", f"--region={installation.region}", "--wait"]
    runner.run(["eksctl", "delete", "cluster", *options, "--disable-nodegroup-eviction"])
    runner.wait(f"the cluster {installation.cluster} is deleted", lambda: _is_deleted(runner, installation), TIMEOUT_S)


def cluster_config(installation: Installation, service_account: str, namespace: str) -> dict[str, Any]:
    """eksctl.yaml, with the scenario's service account where it differs."""
    config: dict[str, Any] = yaml.safe_load(installation.read("eksctl.yaml"))
    models = config["iam"]["podIdentityAssociations"][-1]
    wanted = {"namespace": namespace, "serviceAccountName": service_account}
    if not wanted.items() <= models.items():
        del models["roleName"]  # may be taken by the service of eksctl.yaml; eksctl generates a name
    models |= wanted
    return config


def describe_cluster(runner: Runner, installation: Installation) -> dict[str, Any] | None:
    answer = runner.get("eks", "describe_cluster", NOT_FOUND, name=installation.cluster)
    return dict(answer["cluster"]) if answer else None


def cluster_status(runner: Runner, installation: Installation) -> str | None:
    cluster = describe_cluster(runner, installation)
    return str(cluster["status"]) if cluster else None


def _create(runner: Runner, part: str, config: dict[str, Any], source: str = f"missing parts of {FILE}") -> None:
    runner.run(["eksctl", "create", part, "--config-file", "-"], yaml.safe_dump(config), source)


def _create_missing_parts(runner: Runner, installation: Installation, config: dict[str, Any]) -> None:
    """An interrupted `eksctl create cluster` is not resumed by running it again, but by creating each part."""
    created = _created_addons(runner, installation)
    if addons := [addon for addon in config["addons"] if addon["name"] not in created]:
        _create(runner, "addon", config | {"addons": addons})
    groups = [
        group for group in config["managedNodeGroups"] if not _has_node_group(runner, installation, group["name"])
    ]
    for group in groups:
        _delete_failed_node_group(runner, installation, group["name"])
    if groups:
        _create(runner, "nodegroup", config | {"managedNodeGroups": groups})
    bound = {
        (identity["namespace"], identity["serviceAccount"])
        for identity in runner.get_all(
            "eks", "list_pod_identity_associations", "associations", clusterName=installation.cluster
        )
    }
    wanted = config["iam"]["podIdentityAssociations"]
    if missing := [one for one in wanted if (one["namespace"], one["serviceAccountName"]) not in bound]:
        _create(
            runner, "podidentityassociation", config | {"iam": config["iam"] | {"podIdentityAssociations": missing}}
        )


def _created_addons(runner: Runner, installation: Installation) -> set[str]:
    """Without failed ones, which `eksctl create addon` replaces."""
    cluster = installation.cluster
    return {
        name
        for name in runner.get_all("eks", "list_addons", "addons", clusterName=cluster)
        if _exists(runner.get("eks", "describe_addon", NOT_FOUND, clusterName=cluster, addonName=name), "addon")
    }


def _has_node_group(runner: Runner, installation: Installation, name: str) -> bool:
    return _exists(_describe_node_group(runner, installation, name), "nodegroup")


def _exists(answer: dict[str, Any] | None, kind: str) -> bool:
    return answer is not None and answer[kind]["status"] != "CREATE_FAILED"


def _describe_node_group(runner: Runner, installation: Installation, name: str) -> dict[str, Any] | None:
    return runner.get("eks", "describe_nodegroup", NOT_FOUND, clusterName=installation.cluster, nodegroupName=name)


def _delete_failed_node_group(runner: Runner, installation: Installation, name: str) -> None:
    """eksctl takes what is left of a failed group for the group itself, and would create none."""
    group = _describe_node_group(runner, installation, name)
    if group is not None or stack_status(runner, installation.node_group_stack(name)) is not None:
        options = [f"--cluster={installation.cluster}", f"--region={installation.region}", f"--name={name}"]
        runner.run(["eksctl", "delete", "nodegroup", *options, "--wait", "--drain=false"])


def _delete_orphaned_stack(runner: Runner, installation: Installation) -> None:
    """A stack without its cluster can't be completed, and keeps eksctl from creating another of its name."""
    name = installation.cluster_stack
    runner.wait(
        f"the stack {name} stops changing",
        lambda: not (stack_status(runner, name) or "").endswith("IN_PROGRESS"),
        TIMEOUT_S,
    )
    stack = stack_status(runner, name)
    if stack is not None and cluster_status(runner, installation) is None:
        runner.say(f"the stack {name} is {stack} and has no cluster: deleting it, then creating it again")
        delete_cluster(runner, installation)


def _is_deleted(runner: Runner, installation: Installation) -> bool:
    status = cluster_status(runner, installation)
    return status is None and stack_status(runner, installation.cluster_stack) is None
