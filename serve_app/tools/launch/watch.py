"""What Ray says of the application while it starts: its dashboard's REST API, read every second."""

import http.client
import json
import re
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.tools.launch.preflight import DASHBOARD_PORT

DASHBOARD = f"http://127.0.0.1:{DASHBOARD_PORT}"
# The token that opens the dashboard must not pass through a proxy.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
TOKEN_FILE = Path.home() / ".ray" / "auth_token"
# a second try can't help with these
PERMANENT = re.compile(r"serve_app\.errors\.(?:ModelLoadError|ConfigurationError): (.*)")

UP = frozenset({"HEALTHY"})
SCALING = frozenset({"UPSCALING", "DOWNSCALING"})  # as many as must be are there
ILL = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


@dataclass(frozen=True, slots=True)
class Progress:
    """Up when every deployment is that must be; failed with the reason when waiting is in vain."""

    up: bool = False
    failure: str | None = None
    deployments: tuple[tuple[str, str], ...] = ()
    failed_alone: Mapping[str, str] = field(default_factory=dict)


def read_progress(alone: Collection[str] = ()) -> Progress:
    return interpret(read_status(), alone)


def read_status() -> dict[str, Any]:
    """What Serve says of every application now; empty while the dashboard isn't there yet."""
    request = urllib.request.Request(f"{DASHBOARD}/api/serve/applications/")
    if TOKEN_FILE.is_file():
        request.add_header("Authorization", f"Bearer {TOKEN_FILE.read_text().strip()}")
    try:
        with _DIRECT.open(request, timeout=5) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except (OSError, ValueError, http.client.HTTPException):
        return {}


def interpret(status: dict[str, Any], alone: Collection[str] = ()) -> Progress:
    """What Serve's status means to somebody who waits for it; deployments in `alone` may fail without the others."""
    applications = list((status.get("applications") or {}).values())
    states: list[tuple[str, str]] = []
    failed_alone: dict[str, str] = {}
    for application in applications:
        deployments = application.get("deployments") or {}
        states += [(name, deployment["status"]) for name, deployment in deployments.items()]
        failed_alone |= {
            name: _reason(deployment)
            for name, deployment in deployments.items()
            if name in alone and deployment["status"] == "DEPLOY_FAILED"
        }
        if failure := _failure_of(application, deployments, alone):
            return Progress(failure=failure)
    up = bool(applications) and all(_is_up(application, alone) for application in applications)
    return Progress(up, None, tuple(states), failed_alone)


def _failure_of(application: dict[str, Any], deployments: dict[str, Any], alone: Collection[str]) -> str | None:
    """An application is ill with any of its deployments, so one that is alone must not count."""
    for name, deployment in deployments.items():
        if name not in alone and PERMANENT.search(deployment.get("message") or ""):
            return f"{name}: {_reason(deployment)}"
    ill = [name for name, deployment in deployments.items() if deployment["status"] in ILL]
    if ill and all(name in alone for name in ill):
        return None
    if application["status"] in ILL or PERMANENT.search(application.get("message") or ""):
        return _reason(application)
    return None


def _is_up(application: dict[str, Any], alone: Collection[str]) -> bool:
    states = [one["status"] for name, one in (application.get("deployments") or {}).items() if name not in alone]
    good = UP | SCALING if application["status"] == "RUNNING" else UP
    return bool(states) and all(state in good for state in states)


def _reason(ill: dict[str, Any]) -> str:
    message = ill.get("message") or ""
    found = PERMANENT.findall(message)
    return found[-1] if found else _last_line(message)


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "the application can't be deployed"
