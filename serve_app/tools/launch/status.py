"""The status of the applications while they start, read from the REST API of Ray's dashboard."""

import http.client
import json
import re
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DASHBOARD_PORT = 8265
DASHBOARD = f"http://127.0.0.1:{DASHBOARD_PORT}"
# Without proxies: the request carries the dashboard's token.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
TOKEN_FILE = Path.home() / ".ray" / "auth_token"
# Errors that a retry of Serve's doesn't mend.
PERMANENT = re.compile(r"serve_app\.errors\.(?:ModelLoadError|ConfigurationError): (.*)")

UP = frozenset({"HEALTHY"})
SCALING = frozenset({"UPSCALING", "DOWNSCALING"})  # the minimum number of replicas is running
FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


@dataclass(frozen=True, slots=True)
class Progress:
    """`up`: every required deployment is; `failure`: why the start can't succeed."""

    up: bool = False
    failure: str | None = None
    deployments: tuple[tuple[str, str], ...] = ()
    failed_optional: Mapping[str, str] = field(default_factory=dict)


def read_progress(optional: Collection[str] = ()) -> Progress:
    return parse_progress(read_status(), optional)


def read_status() -> dict[str, Any]:
    """Serve's status of all applications; empty if the dashboard doesn't answer."""
    request = urllib.request.Request(f"{DASHBOARD}/api/serve/applications/")
    if TOKEN_FILE.is_file():
        request.add_header("Authorization", f"Bearer {TOKEN_FILE.read_text().strip()}")
    try:
        with _OPENER.open(request, timeout=5) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except (OSError, ValueError, http.client.HTTPException):
        return {}


def parse_progress(status: dict[str, Any], optional: Collection[str] = ()) -> Progress:
    """Deployments named in `optional` may fail without the others."""
    applications = list((status.get("applications") or {}).values())
    states: list[tuple[str, str]] = []
    failed_optional: dict[str, str] = {}
    for application in applications:
        deployments = application.get("deployments") or {}
        states += [(name, deployment["status"]) for name, deployment in deployments.items()]
        failed_optional |= {
            name: _reason(deployment)
            for name, deployment in deployments.items()
            if name in optional and deployment["status"] == "DEPLOY_FAILED"
        }
        if failure := _find_failure(application, deployments, optional):
            return Progress(failure=failure)
    up = bool(applications) and all(_is_up(application, optional) for application in applications)
    return Progress(up, None, tuple(states), failed_optional)


def _find_failure(application: dict[str, Any], deployments: dict[str, Any], optional: Collection[str]) -> str | None:
    """Serve's state of an application counts every deployment, so one that only has optional failures is not failed."""
    for name, deployment in deployments.items():
        if name not in optional and PERMANENT.search(deployment.get("message") or ""):
            return f"{name}: {_reason(deployment)}"
    failed = [name for name, deployment in deployments.items() if deployment["status"] in FAILED]
    if failed and all(name in optional for name in failed):
        return None
    if application["status"] in FAILED or PERMANENT.search(application.get("message") or ""):
        return _reason(application)
    return None


def _is_up(application: dict[str, Any], optional: Collection[str]) -> bool:
    states = [one["status"] for name, one in (application.get("deployments") or {}).items() if name not in optional]
    accepted = UP | SCALING if application["status"] == "RUNNING" else UP
    return bool(states) and all(state in accepted for state in states)


def _reason(failed: dict[str, Any]) -> str:
    message = failed.get("message") or ""
    if found := PERMANENT.findall(message):
        return str(found[-1])
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "the application can't be deployed"
