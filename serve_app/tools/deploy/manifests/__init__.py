"""The Kubernetes objects of a scenario, in the order in which they are applied."""

from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests import access, network, service, storage
from serve_app.tools.deploy.scenarios.scenario import Scenario

__all__ = ["Manifest", "render"]


def render(scenario: Scenario) -> list[Manifest]:
    """All objects of one service; the RayService comes last, because its pods need the others."""
    found = [access.namespace(scenario), *access.accounts(scenario), *access.roles(scenario)]
    found += network.policies(scenario)
    found += access.disruption_budgets(scenario)
    if scenario.secret_store:
        found += access.secrets(scenario, scenario.secret_store)
    if scenario.head_store and not scenario.head_store.address:
        found += storage.redis(scenario, scenario.head_store)
    if scenario.plans:
        found += storage.plans(scenario, scenario.plans)
    if scenario.load_balancer:
        found.append(service.load_balancer(scenario, scenario.load_balancer))
    return [*found, service.ray_service(scenario)]
