"""How much work of each kind a router takes at a time; health, metadata, metrics and control are always answered."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.errors import QueueFullError
from serve_app.router.errors import answer_error
from serve_app.router.requests import path_of
from serve_app.settings import RouterSettings

Kind = Literal["detection", "languages", "streams"]
DETECTION: Kind = "detection"  # and every other inference that is no language model's
LANGUAGES: Kind = "languages"
STREAMS: Kind = "streams"  # of gRPC, which may be open without any work
ENDINGS = ("/infer", "/generate", "/generate_stream")


class Admission:
    """What is beyond the most of its kind is refused at once, before anything of it is read."""

    def __init__(self, settings: RouterSettings, languages: Collection[str]) -> None:
        """`languages` are the names of language models."""
        self._most = settings.at_once.model_dump()
        self._languages = frozenset(languages)
        self._running: Counter[Kind] = Counter()

    def begin(self, kind: Kind) -> None:
        if self._running[kind] >= self._most[kind]:
            raise QueueFullError(f"this router is at work on {self._most[kind]} requests ({kind}), its most; try again")
        self._running[kind] += 1

    def end(self, kind: Kind) -> None:
        self._running[kind] -= 1

    @contextmanager
    def work(self, kind: Kind) -> Iterator[None]:
        self.begin(kind)
        try:
            yield
        finally:
            self.end(kind)

    def kind_of_model(self, model: str) -> Kind:
        return LANGUAGES if model in self._languages else DETECTION

    def kind_of_path(self, path: str) -> Kind | None:
        """None for what is always answered."""
        if path.startswith("/v1/"):
            return None if path.startswith("/v1/models") else LANGUAGES
        if path.startswith(("/predict/", "/pytorch/predict/")):
            return DETECTION
        if path.startswith("/v2/models/") and path.endswith(ENDINGS):
            return self.kind_of_model(path.split("/")[3])
        return None


class Admit:
    """Middleware for HTTP."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = self._admission.kind_of_path(path_of(scope)) if scope["type"] == "http" else None
        if kind is None:
            await self._app(scope, receive, send)
            return
        try:
            self._admission.begin(kind)
        except QueueFullError as full:
            await (await answer_error(Request(scope), full))(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._admission.end(kind)
