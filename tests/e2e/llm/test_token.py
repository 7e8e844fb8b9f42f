"""A token of the hub that the service was given is seen nowhere."""

import os
import time
from pathlib import Path

import httpx
import pytest

from serve_app.tools.launch.status import DASHBOARD, TOKEN_FILE

pytestmark = pytest.mark.e2e


def test_the_hubs_token_is_in_no_log_status_or_error(languages, hub_token):
    """The logs tell of all that the tests before this did, a model whose weights are nowhere among it."""
    time.sleep(1)  # Serve's logs are written in pieces
    headers = {"Authorization": f"Bearer {TOKEN_FILE.read_text().strip()}"} if TOKEN_FILE.is_file() else {}
    told = {path: httpx.get(f"{languages.url}{path}").text for path in ("/v1/models", "/health", "/v2", "/v2/models")}
    for path in ("/api/serve/applications/", "/api/v0/actors?detail=1", "/api/v0/workers?detail=1", "/api/jobs/"):
        told[path] = httpx.get(f"{DASHBOARD}{path}", headers=headers, timeout=30).text
    told["output"] = languages.output()
    session = Path("/tmp/ray/session_latest").resolve()
    files = [Path(folder) / name for folder, _, names in os.walk(session / "logs") for name in names]
    told |= {str(path): path.read_text(errors="replace") for path in files}
    assert sum(len(text) for text in told.values()) > 100_000
    assert [where for where, text in told.items() if hub_token in text] == []
