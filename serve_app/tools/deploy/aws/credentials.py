"""The Secrets that pods wait for: a token from the environment, and keys that are made here and shown nowhere."""

import base64
import secrets
from collections.abc import Iterator

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.kube import Kube
from serve_app.tools.deploy.scenarios.scenario import Scenario, SecretKey

GRAFANA = "grafana-admin"
KEY_BYTES = 32


def check_hub_token(kube: Kube, scenario: Scenario, hub_token: str | None) -> None:
    key = scenario.hub_token
    if key and not hub_token and not kube.has_secret(scenario.namespace, key.secret, key.key):
        raise ConfigurationError(
            f"the scenario {scenario.scenario} takes models that are gated: set HF_TOKEN to a token of Hugging Face's "
            f"with access to them (it becomes the Secret {key.secret}), or --set hub_token=null where none is"
        )


def make_secrets(kube: Kube, scenario: Scenario, hub_token: str | None) -> None:
    """What is there stays, so that nobody's key changes; a new HF_TOKEN replaces the old one."""
    check_hub_token(kube, scenario, hub_token)
    kube.need_namespace(scenario.namespace)
    if (key := scenario.hub_token) and hub_token:
        encoded = base64.b64encode(hub_token.encode()).decode()
        if not kube.has_secret(scenario.namespace, key.secret, key.key, encoded):
            kube.set_secret(scenario.namespace, key.secret, {key.key: hub_token})
    for made in _made_here(scenario):
        if not kube.has_secret(scenario.namespace, made.secret, made.key):
            kube.set_secret(scenario.namespace, made.secret, {made.key: secrets.token_urlsafe(KEY_BYTES)})
    kube.need_namespace(scenario.monitoring_namespace)
    if not kube.has_secret(scenario.monitoring_namespace, GRAFANA, "admin-password"):
        login = {"admin-user": "admin", "admin-password": secrets.token_urlsafe(KEY_BYTES)}
        kube.set_secret(scenario.monitoring_namespace, GRAFANA, login)


def _made_here(scenario: Scenario) -> Iterator[SecretKey]:
    return (key for key in scenario.secrets if key != scenario.hub_token)
