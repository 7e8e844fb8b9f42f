"""Who asks: the key of a request on either transport, what it allows, and how much of it is left."""

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from serve_app.errors import ForbiddenError, ServeAppError, TooManyRequestsError, UnauthorizedError
from serve_app.keys.admin import AdminKey
from serve_app.keys.file import Key, KeyFile, Scope
from serve_app.keys.headers import HOW, given_key
from serve_app.keys.leases import Leases
from serve_app.router.admission import LANGUAGES, Admission, Kind
from serve_app.router.errors import answer_error
from serve_app.router.requests import path_of
from serve_app.settings import RouterSettings, from_project_root
from serve_app.telemetry.observation import observed

OPEN = ("/health", "/v2/health/live", "/v2/health/ready")  # probes bring no key
NEEDED: Mapping[str, Scope] = {"/metrics": "metrics", "/warmup": "admin"}
ADMIN = Key(name="admin", sha256="0" * 64, scopes=("admin", "metrics"))  # who has the key of admin_key_file


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key."""

    key: Key
    leases: Leases

    @property
    def name(self) -> str:
        return self.key.name

    def require(self, scope: Scope) -> None:
        if scope not in self.key.scopes and not (scope == "metrics" and "admin" in self.key.scopes):
            raise ForbiddenError(
                f"this needs the scope '{scope}', which key '{self.name}' lacks; ask for a key that has it"
            )

    def require_model(self, model: str) -> None:
        if not any(fnmatchcase(model, pattern) for pattern in self.key.models):
            raise ForbiddenError(f"key '{self.name}' may not use model '{model[:80]}'")

    @asynccontextmanager
    async def tokens(self, expected: int) -> AsyncIterator[None]:
        """Of one request for a language model; how many they were is in its observation at the end."""
        await self.leases.take_tokens(self.key, expected)
        try:
            yield
        finally:
            used = observed().tokens
            self.leases.settle_tokens(self.key, expected, used if used else expected)


class Gate:
    """Without a keys file everyone may do everything, except that the admin key is asked for where there is one."""

    def __init__(self, settings: RouterSettings, leases: Leases) -> None:
        self._admin = AdminKey(settings.admin_key_file)
        self._file = KeyFile(from_project_root(settings.keys_file)) if settings.keys_file else None
        self._leases = leases

    def caller(self, headers: Mapping[str, str]) -> Caller | None:
        if self._file is None:
            return None
        given = given_key(headers)
        if not given:
            raise UnauthorizedError(f"this needs an API key: {HOW}")
        key = self._file.find(given) or (ADMIN if self._admin.fits(given) else None)
        if key is None:
            raise UnauthorizedError("the API key is unknown or revoked")
        return Caller(key, self._leases)

    def require_control(self, headers: Mapping[str, str]) -> None:
        """For load and unload."""
        caller = self.caller(headers)
        if caller:
            caller.require("admin")
        else:
            self._admin.require(headers)

    @asynccontextmanager
    async def work(self, caller: Caller | None, kind: Kind) -> AsyncIterator[None]:
        """Count a request of the caller's, until it ends."""
        if caller is None:
            yield
            return
        if self._file and caller.key is not ADMIN and not self._file.is_in_force(caller.key):  # a stream goes on
            raise UnauthorizedError("the API key is unknown or revoked")
        caller.require("llm" if kind == LANGUAGES else "infer")
        async with self._leases.request(caller.key):
            yield


class RequireKey:
    """Middleware for HTTP: refuses before anything is read, counts work, and says in headers what is left."""

    def __init__(self, app: ASGIApp, gate: Gate, admission: Admission) -> None:
        self._app, self._gate, self._admission = app, gate, admission

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (path := path_of(scope)) in OPEN:
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as work:
            caller = None
            try:
                caller = self._gate.caller(Headers(scope=scope))
                observed().caller = caller
                if caller and path in NEEDED:
                    caller.require(NEEDED[path])
                if kind := self._admission.kind_of_path(path):
                    await work.enter_async_context(self._gate.work(caller, kind))
            except ServeAppError as problem:
                response = await answer_error(Request(scope), problem)
                if isinstance(problem, UnauthorizedError):
                    response.headers["WWW-Authenticate"] = challenge(Headers(scope=scope))
                await response(scope, receive, _with_limits(send, caller))
                return
            await self._app(scope, receive, _with_limits(send, caller) if kind else send)


def challenge(headers: Mapping[str, str]) -> str:
    """A browser that opens a page asks its user: the key is the password, with any name."""
    page = "text/html" in headers.get("accept", "")
    return 'Basic realm="serve_app: the API key is the password"' if page else "Bearer"


def limit_headers(caller: Caller) -> dict[str, str]:
    """As OpenAI's clients read them."""
    headers = {}
    for what, (limit, left, reset_s) in caller.leases.standing(caller.key).items():
        headers[f"x-ratelimit-limit-{what}"] = str(limit)
        headers[f"x-ratelimit-remaining-{what}"] = str(left)
        headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(reset_s)}s"
    return headers


def _with_limits(send: Send, caller: Caller | None) -> Send:
    if caller is None or not caller.key.is_limited:
        return send

    async def send_with_limits(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(limit_headers(caller))
        await send(message)

    return send_with_limits


def retry_metadata(problem: Exception) -> tuple[tuple[str, str], ...]:
    """gRPC's trailing metadata of a refusal."""
    if isinstance(problem, TooManyRequestsError) and problem.retry_after_s:
        return (("retry-after", str(problem.retry_after_s)),)
    return ()
