"""A service that asks for API keys and whose routers host pictures, on a start of its own: others do neither."""

import yaml

from serve_app.keys.file import digest_of
from tests.e2e.service import write_config

KEYS = {
    "all": {"scopes": ["infer", "llm", "admin"]},
    "vision": {"scopes": ["infer"], "models": ["yolo_*"]},
    "chat": {"scopes": ["llm"]},
    "few": {"scopes": ["infer", "llm"], "requests_per_minute": 12},
    "many": {"scopes": ["infer"], "requests_per_minute": 300},
    "many-too": {"scopes": ["infer"], "requests_per_minute": 300},
    "tokens": {"scopes": ["llm"], "tokens_per_minute": 3000},
    "leaving": {"scopes": ["infer"]},
}


def write_keys(path, names=KEYS):
    rows = [{"name": name, "sha256": digest_of(f"sa-{name}"), **KEYS[name]} for name in names]
    path.write_text(yaml.safe_dump({"keys": rows}))


def write_guarded_config(folder, language_models=()):
    """Two routers with pictures under model control, and the keys file in the folder."""
    write_keys(folder / "keys.yaml")

    def change(config):
        (application,) = config["applications"]
        arguments, deployments = application["args"], application["deployments"]
        arguments["router"]["keys_file"] = str(folder / "keys.yaml")
        arguments["baseline"] = None
        arguments["triton"][0]["control_mode"] = "explicit"
        arguments["llms"] = list(language_models)
        router = {"name": "router", "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.4}}
        deployments[:] = [router | {"max_ongoing_requests": 1024}]

    return write_config(folder, change)
