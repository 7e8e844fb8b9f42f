"""The EKS cluster by eksctl: made whole, or completed where a run was cut off; what is there is asked of EKS."""

from typing import Any

import yaml

from serve_app.deploy.aws.calls import Calls
from serve_app.deploy.aws.site import Site
from serve_app.errors import ConfigurationError

TIMEOUT_S = 1800
GONE = ("ResourceNotFoundException",)
FROM_INPUT = ("--config-file", "-")


def make_cluster(calls: Calls, site: Site, service_account: str, namespace: str) -> None:
    config = cluster_config(site, service_account, namespace)
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
    groups = set(calls.ask_all("eks", "list_nodegroups", "nodegroups", clusterName=site.cluster))
    addons = set(calls.ask_all("eks", "list_addons", "addons", clusterName=site.cluster))
    bound = {
        (one["namespace"], one["serviceAccount"])
        for one in calls.ask_all("eks", "list_pod_identity_associations", "associations", clusterName=site.cluster)
    }
    identities = config["iam"]["podIdentityAssociations"]
    missing_addons = [one for one in config["addons"] if one["name"] not in addons]
    missing_groups = [one for one in config["managedNodeGroups"] if one["name"] not in groups]
    missing = [one for one in identities if (one["namespace"], one["serviceAccountName"]) not in bound]
    if missing_addons:
        _create(calls, "addon", config | {"addons": missing_addons})
    if missing_groups:
        _create(calls, "nodegroup", config | {"managedNodeGroups": missing_groups})
    if missing:
        iam = config["iam"] | {"podIdentityAssociations": missing}
        _create(calls, "podidentityassociation", config | {"iam": iam})


def delete_cluster(calls: Calls, site: Site) -> None:
    if status_of(calls, site) is None and not calls.rehearsal:
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
    calls.wait(f"the cluster {site.cluster} is gone", lambda: status_of(calls, site) is None, TIMEOUT_S)


def cluster_config(site: Site, service_account: str, namespace: str) -> dict[str, Any]:
    """eksctl.yaml, with the service's own namespace where a scenario has another."""
    config: dict[str, Any] = yaml.safe_load(site.read("eksctl.yaml"))
    models = config["iam"]["podIdentityAssociations"][-1]
    models |= {"namespace": namespace, "serviceAccountName": service_account}
    return config


def description_of(calls: Calls, site: Site) -> dict[str, Any] | None:
    answer = calls.ask("eks", "describe_cluster", GONE, name=site.cluster)
    return dict(answer["cluster"]) if answer else None


def status_of(calls: Calls, site: Site) -> str | None:
    description = description_of(calls, site)
    return str(description["status"]) if description else None


def _create(calls: Calls, part: str, config: dict[str, Any]) -> None:
    calls.run(["eksctl", "create", part, *FROM_INPUT], yaml.safe_dump(config), "what is missing of eksctl.yaml")
