"""`/`: what this service has, where to look, and first requests to copy; as a page for browsers, as text for curl."""

import html
import re
from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-f:]+\](:\d+)?", re.IGNORECASE)
KEY = ' -H "Authorization: Bearer $SERVE_APP_KEY"'
LINKS = {
    "ui/": "playground: try pictures and chats here",
    "docs": "every HTTP endpoint, to read and to try",
    "tracks": "the ways to detections, and their models",
    "health": "which deployments are ready",
    "v2/models": "models of the KServe protocol",
    "v1/models": "language models",
    "metrics": "metrics for Prometheus",
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>serve_app</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }}
h1 {{ color: #047857; }} a {{ color: #047857; }} dt {{ font-weight: 600; }} dd {{ margin: 0 0 .5rem; }}
pre {{ background: #f3f4f6; padding: .75rem; border-radius: .5rem; overflow-x: auto; }}
@media (prefers-color-scheme: dark) {{
body {{ background: #111827; color: #e5e7eb; }} pre {{ background: #1f2937; }} h1, a {{ color: #34d399; }} }}
</style></head><body><main>
<h1>serve_app</h1>
<p>{served}</p>
<h2>Look</h2><dl>{links}</dl>
<h2>First requests</h2>{requests}
</main></body></html>
"""


class Home:
    """The first page that a person sees."""

    def __init__(self, tracks: Collection[str], models: Collection[str], with_playground: bool, keys: bool) -> None:
        self._tracks, self._models, self._key = list(tracks), list(models), KEY if keys else ""
        without = () if with_playground else ("ui/",)
        self._links = {path: text for path, text in LINKS.items() if path not in without}

    def routes(self) -> list[Route]:
        return [Route("/", self.page)]

    async def page(self, request: Request) -> Response:
        requests = self._requests(request)
        if "text/html" in request.headers.get("accept", ""):
            links = "".join(
                f'<dt><a href="{path}">/{path}</a></dt><dd>{text}</dd>' for path, text in self._links.items()
            )
            written = "".join(f"<pre tabindex=0><code>{html.escape(one)}</code></pre>" for one in requests)
            return HTMLResponse(PAGE.format(served=html.escape(self._served()), links=links, requests=written))
        links = "".join(f"  /{path:<10} {text}\n" for path, text in self._links.items())
        commands = "".join(f"  {one}\n" for one in requests)
        return PlainTextResponse(f"serve_app: {self._served()}\n\n{links}\nfirst requests:\n{commands}")

    def _served(self) -> str:
        tracks = f"{len(self._tracks)} ways to detections, such as {self._tracks[0]}" if self._tracks else ""
        models = f"language models: {', '.join(self._models)}" if self._models else ""
        return "; ".join(filter(None, (tracks, models))) or "Triton models, at /v2/models"

    def _requests(self, request: Request) -> list[str]:
        """At the address by which this page was asked for."""
        host = request.headers.get("host", "")
        url = f"{request.url.scheme}://{host if HOST.fullmatch(host) else 'localhost:8000'}"
        found = []
        if self._tracks:
            found.append(f"curl{self._key} -F image=@picture.jpg '{url}{self._tracks[0]}?conf=0.5'")
        for model in self._models[:1]:
            chat = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is Ray?"}}]}}'
            found.append(f"curl{self._key} {url}/v1/chat/completions -d '{chat}'")
        return [*found, f"curl{self._key} -X POST {url}/v2/repository/index"]
