"""The kubeconfig of an installed cluster, for Helm, for scripts/deploy and for people."""

import sys
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.aws.calls import private_file
from serve_app.tools.deploy.aws.site import Site, default_kubeconfig
from serve_app.tools.deploy.aws.token import API


def kubeconfig_of(site: Site, description: dict[str, Any]) -> dict[str, Any]:
    """No secret is in it: a token is asked for whenever one is needed."""
    server = {
        "server": description["endpoint"],
        "certificate-authority-data": description["certificateAuthority"]["data"],
    }
    if description["endpoint"].startswith("http://"):
        del server["certificate-authority-data"]
    login = {
        "apiVersion": API,
        "command": sys.executable,
        "args": ["-m", "serve_app.tools.deploy.aws.token", "--cluster-name", site.cluster, "--region", site.region],
        "env": [{"name": "PYTHONPATH", "value": str(PROJECT_ROOT)}],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": site.cluster,
        "clusters": [{"name": site.cluster, "cluster": server}],
        "users": [{"name": site.cluster, "user": {"exec": login}}],
        "contexts": [{"name": site.cluster, "context": {"cluster": site.cluster, "user": site.cluster}}],
    }


def check_kubeconfig(path: Path, cluster: str) -> None:
    """The file is written as a whole: one that knows of other clusters would lose them."""
    try:
        content = yaml.safe_load(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as problem:
        raise ConfigurationError(f"--kubeconfig {path} can't be read: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        content = "no YAML"
    if content is not None and not isinstance(content, dict):
        raise ConfigurationError(f"--kubeconfig {path} is there and is no kubeconfig: name a file that may be written")
    others = [one.get("name") for one in (content or {}).get("contexts") or [] if one.get("name") != cluster]
    if others:
        raise ConfigurationError(
            f"--kubeconfig {path} also has {', '.join(map(repr, others))}, which would be lost: name a file of "
            f"its own, or leave it out for {default_kubeconfig(cluster)}"
        )


def write_kubeconfig(path: Path, site: Site, description: dict[str, Any]) -> None:
    check_kubeconfig(path, site.cluster)
    try:
        private_file(path, yaml.safe_dump(kubeconfig_of(site, description), sort_keys=False))
    except OSError as problem:
        raise ConfigurationError(f"--kubeconfig {path} can't be written: {problem.strerror}") from None
