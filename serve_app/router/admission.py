"""How much work of each kind a router takes at a time; health, metadata, metrics and control are always answered."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.errors import QueueFullError, UnavailableError
from serve_app.router.errors import answer_error
from serve_app.router.pace import Pace
from serve_app.router.requests import path_of
from serve_app.settings import RouterSettings
from serve_app.telemetry.observation import observed

Kind = Literal["detection", "languages", "streams"]
DETECTION: Kind = "detection"  # and every other inference that is no language model's
LANGUAGES: Kind = "languages"
STREAMS: Kind = "streams"  # of gRPC, which may be open without any work
WORDS = {DETECTION: "inferences", LANGUAGES: "requests for language models", STREAMS: "open streams"}
ENDINGS = ("/infer", "/generate", "/generate_stream")


class Admission:
    """What is beyond the most of its kind is refused at once, before anything of it is read."""

    def __init__(
        self, settings: RouterSettings, languages: Collection[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`languages` are the names of language models."""
        self._most = settings.at_once.model_dump()
        self._languages = frozenset(languages)
        self._running: Counter[Kind] = Counter()
        self._clock = clock
        self._pace = Pace(settings.max_wait_s)

    @contextmanager
    def work(self, kind: Kind) -> Iterator[None]:
        if self._running[kind] >= self._most[kind]:
            limit = f"{self._most[kind]} {WORDS[kind]} (router.at_once.{kind})"
            raise QueueFullError(f"the router is at its limit of {limit}; try again later")
        began = self._clock()
        if kind == DETECTION:
            self._pace.begin(began)
        self._running[kind] += 1
        failed = True
        try:
            yield
            failed = observed().status >= UnavailableError.status
        finally:
            self._running[kind] -= 1
            if kind == DETECTION:
                self._pace.end(began, self._clock(), answered=not failed)

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
        with ExitStack() as work:
            try:
                work.enter_context(self._admission.work(kind))
            except QueueFullError as full:
                await (await answer_error(Request(scope), full))(scope, receive, send)
                return
            await self._app(scope, receive, send)
