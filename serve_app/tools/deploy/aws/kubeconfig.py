"""The kubeconfig of an installed cluster, for Helm, scripts/deploy and kubectl."""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.aws.installation import Installation, default_kubeconfig
from serve_app.tools.deploy.aws.token import API


def write_kubeconfig(path: Path, installation: Installation, cluster: dict[str, Any]) -> None:
    """`cluster` is EKS's description of it."""
    check_kubeconfig(path, installation.cluster)
    text = yaml.safe_dump(build_kubeconfig(installation, cluster), sort_keys=False)
    try:
        _write_private(path, text)
    except OSError as error:
        raise ConfigurationError(f"can't write --kubeconfig {path}: {error.strerror}") from None


def check_kubeconfig(path: Path, cluster: str) -> None:
    """Refuse a file that has other clusters: it is written as a whole, and they would be lost."""
    try:
        content = yaml.safe_load(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConfigurationError(f"can't read --kubeconfig {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        content = "not YAML"
    if content is not None and not isinstance(content, dict):
        raise ConfigurationError(f"--kubeconfig {path} exists and is not a kubeconfig; name another file")
    contexts = [context.get("name") for context in (content or {}).get("contexts") or []]
    others = ", ".join(repr(name) for name in contexts if name != cluster)
    if others:
        raise ConfigurationError(
            f"--kubeconfig {path} has other contexts ({others}), which would be lost; name another file, or leave "
            f"--kubeconfig out to use {default_kubeconfig(cluster)}"
        )


def build_kubeconfig(installation: Installation, cluster: dict[str, Any]) -> dict[str, Any]:
    """Without a secret: its user runs `token`, which asks for a short-lived one."""
    name, endpoint = installation.cluster, cluster["endpoint"]
    server = {"server": endpoint}
    if not endpoint.startswith("http://"):
        server["certificate-authority-data"] = cluster["certificateAuthority"]["data"]
    token = {
        "apiVersion": API,
        "command": sys.executable,
        "args": ["-m", "serve_app.tools.deploy.aws.token", "--cluster-name", name, "--region", installation.region],
        "env": [{"name": "PYTHONPATH", "value": str(PROJECT_ROOT)}],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": name, "user": {"exec": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


def _write_private(path: Path, text: str) -> None:
    """Readable by its owner alone, and replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
