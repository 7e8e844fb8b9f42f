"""The EKS cluster by eksctl: made whole, or completed where a run was cut off; EKS and its stacks say what is there."""

from typing import Any

import yaml

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.aws.site import Site
from serve_app.tools.deploy.aws.stack import stack_status

TIMEOUT_S = 1800
GONE = ("ResourceNotFoundException",)
FROM_INPUT = ("--config-file", "-")
ANSWERS = ("ACTIVE", "UPDATING")  # when a cluster has an endpoint that answers


def make_cluster(calls: Calls, site: Site, service_account: str, namespace: str) -> None:
    config = cluster_config(site, service_account, namespace)
    _make_room(calls, site)
    status = status_of(calls, site)
    if status is None:
        calls.run(["eksctl", "create", "cluster", *FROM_INPUT], yaml.safe_dump(config), "kuberay/cluster/eksctl.yaml")
        status = status_of(calls, site)
    if status == "FAILED":
        raise ConfigurationError(
            f"the cluster {site.cluster} is FAILED: scripts/cleanup --from cluster removes it, then install again"
        )
    if status == "DELETING":
        raise ConfigurationError(f"the cluster {site.cluster} is being deleted: run this again when it is gone")
    calls.wait(f"the cluster {site.cluster} is ACTIVE", lambda: status_of(calls, site) == "ACTIVE", TIMEOUT_S)
    complete_cluster(calls, site, config)


def complete_cluster(calls: Calls, site: Site, config: dict[str, Any]) -> None:
    """eksctl creates a cluster in parts; each that is missing is made by the command that makes it alone."""
    if calls.rehearsal:  # `create cluster` makes all of them
        return
    addons = _addons(calls, site)
    bound = {
        (one["namespace"], one["serviceAccount"])
        for one in calls.ask_all("eks", "list_pod_identity_associations", "associations", clusterName=site.cluster)
    }
    identities = config["iam"]["podIdentityAssociations"]
    missing_addons = [one for one in config["addons"] if one["name"] not in addons]
    missing_groups = [one for one in config["managedNodeGroups"] if not _has_group(calls, site, one["name"])]
    missing = [one for one in identities if (one["namespace"], one["serviceAccountName"]) not in bound]
    if missing_addons:
        _create(calls, "addon", config | {"addons": missing_addons})
    if missing_groups:
        for group in missing_groups:
            _end_group(calls, site, group["name"])
        _create(calls, "nodegroup", config | {"managedNodeGroups": missing_groups})
    if missing:
        iam = config["iam"] | {"podIdentityAssociations": missing}
        _create(calls, "podidentityassociation", config | {"iam": iam})


def delete_cluster(calls: Calls, site: Site) -> None:
    """Also where only eksctl's stack is left: without the cluster it still has networks and addresses that cost."""
    if not calls.rehearsal and _is_gone(calls, site):
        return
    # --disable-nodegroup-eviction: budgets of pods would hold up nodes that go with everything on them
    calls.run(
        [
            "eksctl",
            "delete",
            "cluster",
            f"--name={site.cluster}",
            f"--region={site.region}",
            "--wait",
            "--disable-nodegroup-eviction",
        ]
    )
    calls.wait(f"the cluster {site.cluster} is gone", lambda: _is_gone(calls, site), TIMEOUT_S)


def cluster_config(site: Site, service_account: str, namespace: str) -> dict[str, Any]:
    """eksctl.yaml, with the service's own namespace where a scenario has another."""
    config: dict[str, Any] = yaml.safe_load(site.read("eksctl.yaml"))
    models = config["iam"]["podIdentityAssociations"][-1]
    ours = {"namespace": namespace, "serviceAccountName": service_account}
    if not ours.items() <= models.items():
        del models["roleName"]  # of the committed service, which may be there as well: eksctl finds a name
    models |= ours
    return config


def description_of(calls: Calls, site: Site) -> dict[str, Any] | None:
    answer = calls.ask("eks", "describe_cluster", GONE, name=site.cluster)
    return dict(answer["cluster"]) if answer else None


def status_of(calls: Calls, site: Site) -> str | None:
    description = description_of(calls, site)
    return str(description["status"]) if description else None


def _make_room(calls: Calls, site: Site) -> None:
    """A stack whose cluster isn't there can't be gone on with, and holds the name: it goes first."""
    calls.wait(f"the stack {site.cluster_stack} is at rest", lambda: _is_at_rest(calls, site), TIMEOUT_S)
    stack = stack_status(calls, site.cluster_stack)
    if stack is not None and status_of(calls, site) is None:
        calls.say(f"the stack {site.cluster_stack} is {stack}, and there is no cluster: it is deleted and made anew")
        delete_cluster(calls, site)


def _is_at_rest(calls: Calls, site: Site) -> bool:
    return not (stack_status(calls, site.cluster_stack) or "").endswith("IN_PROGRESS")


def _is_gone(calls: Calls, site: Site) -> bool:
    return status_of(calls, site) is None and stack_status(calls, site.cluster_stack) is None


def _addons(calls: Calls, site: Site) -> set[str]:
    """Those that were made; eksctl makes one that failed anew."""
    names = calls.ask_all("eks", "list_addons", "addons", clusterName=site.cluster)
    return {
        name
        for name in names
        if not _has_failed(calls.ask("eks", "describe_addon", GONE, clusterName=site.cluster, addonName=name), "addon")
    }


def _has_group(calls: Calls, site: Site, name: str) -> bool:
    answer = calls.ask("eks", "describe_nodegroup", GONE, clusterName=site.cluster, nodegroupName=name)
    return not _has_failed(answer, "nodegroup")


def _has_failed(answer: dict[str, Any] | None, kind: str) -> bool:
    return answer is None or answer[kind]["status"] == "CREATE_FAILED"


def _end_group(calls: Calls, site: Site, name: str) -> None:
    """What is left of one that failed: eksctl would take it for the group, and make none."""
    known = calls.ask("eks", "describe_nodegroup", GONE, clusterName=site.cluster, nodegroupName=name)
    if known is None and stack_status(calls, site.group_stack(name)) is None:
        return
    where = [f"--cluster={site.cluster}", f"--region={site.region}", f"--name={name}"]
    calls.run(["eksctl", "delete", "nodegroup", *where, "--wait", "--drain=false"])


def _create(calls: Calls, part: str, config: dict[str, Any]) -> None:
    calls.run(["eksctl", "create", part, *FROM_INPUT], yaml.safe_dump(config), "what is missing of eksctl.yaml")
