"""Secrets that pods need: the Hugging Face token from HF_TOKEN, and keys and passwords that are generated."""

import base64
import secrets

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.objects import ClusterObjects
from serve_app.tools.deploy.scenarios.scenario import Scenario

GRAFANA = "grafana-admin"
KEY_BYTES = 32
NO_KEYS = "keys: []\n"  # who installs adds them by scripts/keys, which shows each once


def check_hub_token(objects: ClusterObjects, scenario: Scenario, hub_token: str | None) -> None:
    key = scenario.hub_token
    if key and not hub_token and not _value_of(objects, scenario.namespace, key.secret, key.key):
        raise ConfigurationError(
            f"the scenario {scenario.scenario} loads gated models: set HF_TOKEN to a Hugging Face token with access to "
            f"them, which becomes the Secret {key.secret}; if none of your models is gated, --set hub_token=null"
        )


def create_secrets(objects: ClusterObjects, scenario: Scenario, hub_token: str | None) -> None:
    """Existing keys and passwords are kept; a new HF_TOKEN replaces the old one."""
    check_hub_token(objects, scenario, hub_token)
    objects.create_namespace(scenario.namespace)
    for key in scenario.secrets:
        current = _value_of(objects, scenario.namespace, key.secret, key.key)
        if key == scenario.hub_token:
            if hub_token and current != hub_token:
                objects.set_secret(scenario.namespace, key.secret, {key.key: hub_token})
        elif not current and key == scenario.keys:
            objects.set_secret(scenario.namespace, key.secret, {key.key: NO_KEYS})
        elif not current:
            objects.set_secret(scenario.namespace, key.secret, {key.key: secrets.token_urlsafe(KEY_BYTES)})
    objects.create_namespace(scenario.monitoring_namespace)
    if not _value_of(objects, scenario.monitoring_namespace, GRAFANA, "admin-password"):
        login = {"admin-user": "admin", "admin-password": secrets.token_urlsafe(KEY_BYTES)}
        objects.set_secret(scenario.monitoring_namespace, GRAFANA, login)


def _value_of(objects: ClusterObjects, namespace: str, name: str, key: str) -> str:
    """Empty where there is none."""
    found = objects.get({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}})
    return base64.b64decode(((found or {}).get("data") or {}).get(key) or "").decode("utf-8", "replace")
