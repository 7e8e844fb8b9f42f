"""What Gradio offers and this page does not: files that nobody uploaded, other hosts, streams without end."""

import re
from typing import Any

import gradio as gr
from gradio import processing_utils
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Proxies, addresses in the place of files, heartbeats that never end, and tools of those who make pages.
CLOSED = re.compile(
    r"/(proxy=|file=\s*[a-z][a-z0-9+.-]*:|heartbeat/|run-history|(undo-)?vibe-|process_recording|custom_component/)",
    re.IGNORECASE,
)


class Guard:
    """Before the page: to the rest it says that there is nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        closed = scope["type"] == "http" and CLOSED.search(scope["path"])
        await (PlainTextResponse("not found", 404) if closed else self._app)(scope, receive, send)


def close_doors(blocks: gr.Blocks) -> None:
    """Gradio asks whether a file was uploaded only where it believes to have started its server by itself."""
    blocks.has_launched = True
    processing_utils.async_ssrf_protected_download = _fetch_nothing


async def _fetch_nothing(url: str, _folder: str) -> Any:
    raise ValueError(f"{url}: this page fetches nothing")
