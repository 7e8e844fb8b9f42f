"""What the logs, the status pages and the errors of all tests before this have in them, and what they must not."""

import secrets
from pathlib import Path

import httpx
import pytest

from serve_app.tools.launch.status import DASHBOARD, TOKEN_FILE
from tests.e2e.service import HUB_TOKEN, SHAPES

pytestmark = pytest.mark.usefixtures("languages")
PICTURE = SHAPES.read_bytes()
LOGS = Path("/tmp/ray/session_latest/logs")
CHAT = {"model": "demo-llm", "messages": [{"role": "user", "content": "What is a replica?"}], "temperature": 0}
SECRETS = {"prompt": "orangutan-prompt", "key": "tangerine-key", "field": "marmoset-field", "regex": "gibbon-regex"}


def test_one_id_is_in_every_log_from_edge_to_engine_and_no_content_is_in_any(service, wait_for):
    identity = f"followed-{secrets.token_hex(4)}"
    headers = {"x-request-id": identity, "authorization": f"Bearer {SECRETS['key']}"}
    say = [{"role": "user", "content": SECRETS["prompt"]}]
    bad = [
        {"n": 10**9},
        {SECRETS["field"]: 1},
        {"structured_outputs": {"regex": f"({SECRETS['regex']}"}},
        {"max_tokens": -1},
        {"messages": [{"role": "user", "content": f"{SECRETS['prompt']} " * 3000}]},
        {"messages": SECRETS["prompt"]},
    ]
    with httpx.Client(base_url=service.url, timeout=60, headers=headers) as client:
        assert client.post("/predict/nano", content=PICTURE).headers["x-request-id"] == identity
        for more in ({}, {"stream": True}, *bad):
            client.post("/v1/chat/completions", json=CHAT | {"messages": say} | more)
        client.post("/v2/models/demo-llm/generate", json={"text_input": SECRETS["prompt"], "max_tokens": 5})
        client.post("/predict/nano", content=SECRETS["prompt"].encode())
        client.post("/v2/repository/models/yolo/load", json={})

    def naming():
        return {path.name for path in LOGS.rglob("*.log") if identity in path.read_text(errors="replace")}

    wanted = ("router", "vision", "demo-llm")
    wait_for(
        lambda: all(any(name in file for file in naming()) for name in wanted), 30, f"logs of {wanted} name the request"
    )
    texts = [path.read_text(errors="replace") for path in LOGS.rglob("*") if path.is_file()] + [service.output()]
    assert [secret for secret in SECRETS.values() if any(secret in text for text in texts)] == []


def test_the_hubs_token_is_in_no_log_status_or_error(service):
    """The logs have all that the tests before this did, a model whose weights are nowhere among it."""
    headers = {"Authorization": f"Bearer {TOKEN_FILE.read_text().strip()}"} if TOKEN_FILE.is_file() else {}
    texts = {path: httpx.get(f"{service.url}{path}").text for path in ("/v1/models", "/health", "/v2", "/v2/models")}
    for path in ("/api/serve/applications/", "/api/v0/actors?detail=1", "/api/v0/workers?detail=1", "/api/jobs/"):
        texts[path] = httpx.get(f"{DASHBOARD}{path}", headers=headers, timeout=30).text
    texts["output"] = service.output()
    texts |= {str(path): path.read_text(errors="replace") for path in LOGS.rglob("*") if path.is_file()}
    assert sum(len(text) for text in texts.values()) > 100_000
    assert [where for where, text in texts.items() if HUB_TOKEN in text] == []
