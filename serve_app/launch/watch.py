"""What Ray says of the application while it starts: its dashboard's REST API, read every second."""

import http.client
import json
import re
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_app.launch.preflight import DASHBOARD_PORT

DASHBOARD = f"http://127.0.0.1:{DASHBOARD_PORT}"
# The token that opens the dashboard must not pass through a proxy.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
TOKEN_FILE = Path.home() / ".ray" / "auth_token"
# a second try can't help with these
PERMANENT = re.compile(r"serve_app\.errors\.(?:ModelLoadError|ConfigurationError): (.*)")


@dataclass(frozen=True, slots=True)
class Progress:
    """Up when every deployment is that must be; failed with the reason when waiting is in vain."""

    up: bool = False
    failure: str | None = None
    deployments: tuple[tuple[str, str], ...] = ()
    failed_alone: Mapping[str, str] = field(default_factory=dict)


def read_progress(alone: Collection[str] = ()) -> Progress:
    """The state now; empty while the dashboard isn't there yet."""
    request = urllib.request.Request(f"{DASHBOARD}/api/serve/applications/")
    if TOKEN_FILE.is_file():
        request.add_header("Authorization", f"Bearer {TOKEN_FILE.read_text().strip()}")
    try:
        with _DIRECT.open(request, timeout=5) as answer:
            return interpret(json.load(answer), alone)
    except (OSError, ValueError, http.client.HTTPException):
        return Progress()


def interpret(status: dict[str, Any], alone: Collection[str] = ()) -> Progress:
    """What Serve's status means to somebody who waits for it; deployments in `alone` may fail without the others."""
    applications = (status.get("applications") or {}).values()
    deployments, failed_alone = [], {}
    for application in applications:
        for name, deployment in (application.get("deployments") or {}).items():
            deployments.append((name, deployment["status"]))
            message = deployment.get("message") or ""
            found = PERMANENT.findall(message)
            if name in alone:
                if deployment["status"] == "DEPLOY_FAILED":
                    failed_alone[name] = found[-1] if found else _last_line(message)
            elif found:
                return Progress(failure=f"{name}: {found[-1]}")
        if not failed_alone and (failure := _failure_of(application)):
            return Progress(failure=failure)
    needed = [state for name, state in deployments if name not in alone]
    up = bool(needed) and all(state == "HEALTHY" for state in needed)
    return Progress(up, None, tuple(deployments), failed_alone)


def _failure_of(application: dict[str, Any]) -> str | None:
    message = application.get("message") or ""
    found = PERMANENT.findall(message)
    if found or application["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
        return found[-1] if found else _last_line(message)
    return None


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "the application can't be deployed"
