"""/openapi.json, and /docs to read and try the interface without a network."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from serve_app.router.plane import ServedTrack

DOCUMENT = Path(__file__).with_name("openapi.yaml")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>serve_app</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css"></head>
<body><div id="ui"></div><script src="docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", tryItOutEnabled: true})</script></body></html>
"""
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#10b981" stroke-width="2">
<rect x="2" y="2" width="12" height="12" rx="2"/><circle cx="8" cy="8" r="2"/></svg>
"""


class Documentation:
    """The committed document, with the tracks that this configuration serves."""

    def __init__(self, tracks: Iterable[ServedTrack], with_playground: bool = True) -> None:
        self._document = describe(tracks, with_playground)

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/openapi.json", self.document),
            Route("/docs", self.page),
            Route("/favicon.ico", self.icon, include_in_schema=False),
            Mount("/docs/assets", StaticFiles(directory=swagger_ui_path)),
        ]

    async def document(self, _request: Request) -> Response:
        return JSONResponse(self._document)

    async def page(self, _request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def icon(self, _request: Request) -> Response:
        """Browsers request it with every page."""
        return Response(ICON, media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})


@cache
def read_document() -> dict[str, Any]:
    return dict(yaml.safe_load(DOCUMENT.read_text()))


def describe(tracks: Iterable[ServedTrack], with_playground: bool = True) -> dict[str, Any]:
    """The committed document; the path parameters of the predict endpoints list what is served."""
    document = {**read_document()}
    document["paths"] = {path: {**item} for path, item in document["paths"].items()}
    if not with_playground:
        del document["paths"]["/ui"]
    targets: dict[str, list[str]] = {}
    for served in tracks:
        prefix, _, target = served.track.path.rpartition("/")
        targets.setdefault(prefix + "/{target}", []).append(target)
    for path in [path for path in document["paths"] if path.endswith("/predict/{target}") and path not in targets]:
        del document["paths"][path]  # a ladder without a PyTorch baseline
    for path, names in targets.items():
        schema = {"type": "string", "enum": names}
        document["paths"][path]["parameters"] = [
            {"name": "target", "in": "path", "required": True, "schema": schema, "example": names[0]}
        ]
    return document
