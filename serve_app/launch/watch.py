"""What Ray says of the application while it starts: its dashboard's REST API, read every second."""

import http.client
import json
import re
import urllib.request
from dataclasses import dataclass
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
    """Up when every deployment is; failed with the reason when waiting is in vain."""

    up: bool = False
    failure: str | None = None
    deployments: tuple[tuple[str, str], ...] = ()


def read_progress() -> Progress:
    """The state now; empty while the dashboard isn't there yet."""
    request = urllib.request.Request(f"{DASHBOARD}/api/serve/applications/")
    if TOKEN_FILE.is_file():
        request.add_header("Authorization", f"Bearer {TOKEN_FILE.read_text().strip()}")
    try:
        with _DIRECT.open(request, timeout=5) as answer:
            return interpret(json.load(answer))
    except (OSError, ValueError, http.client.HTTPException):
        return Progress()


def interpret(status: dict[str, Any]) -> Progress:
    """What Serve's status means to somebody who waits for it."""
    applications = (status.get("applications") or {}).values()
    deployments = []
    for application in applications:
        for name, deployment in (application.get("deployments") or {}).items():
            deployments.append((name, deployment["status"]))
            found = PERMANENT.findall(deployment.get("message") or "")
            if found:
                return Progress(failure=f"{name}: {found[-1]}")
        message = application.get("message") or ""
        found = PERMANENT.findall(message)
        if found or application["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
            return Progress(failure=found[-1] if found else _last_line(message))
    up = bool(deployments) and all(application["status"] == "RUNNING" for application in applications)
    return Progress(up=up, deployments=tuple(deployments))


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "the application can't be deployed"
