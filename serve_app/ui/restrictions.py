"""Features of Gradio that this page disables: other hosts' files, files that nobody uploaded, endless streams."""

import re
from typing import Any

import gradio as gr
from gradio import processing_utils
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Proxies, URLs in the place of files, heartbeats, which never end, and tools for developers of a page.
BLOCKED = re.compile(
    r"/(proxy=|file=\s*[a-z][a-z0-9+.-]*:|heartbeat/|run-history|(undo-)?vibe-|process_recording|custom_component/)",
    re.IGNORECASE,
)


class BlockRoutes:
    """Middleware that answers 404 on the routes of disabled features."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        blocked = scope["type"] == "http" and BLOCKED.search(scope["path"])
        await (PlainTextResponse("not found", 404) if blocked else self._app)(scope, receive, send)


def restrict_files(blocks: gr.Blocks) -> None:
    """Accept uploaded files only: Gradio checks that of pages that it has launched, and downloads URLs itself."""
    blocks.has_launched = True
    processing_utils.async_ssrf_protected_download = _refuse_download


async def _refuse_download(url: str, _folder: str) -> Any:
    raise ValueError(f"{url}: the playground downloads nothing")
