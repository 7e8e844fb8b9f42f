"""Requests to one Kubernetes API through the official client; answers are dicts, failures are our errors."""

import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.rest import ApiException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger
from yaml import YAMLError

from serve_app.errors import (
    ConfigurationError,
    ForbiddenError,
    NotFoundError,
    ServeAppError,
    UnauthorizedError,
    UnavailableError,
)

REQUEST_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10
CONFLICT = re.compile(r'conflict with "([^"]+)"')

Query = Mapping[str, str | int | bool]


class ConflictError(ConfigurationError):
    """A server-side apply that would change the fields of other managers."""

    def __init__(self, message: str, managers: Collection[str] = ()) -> None:
        super().__init__(message)
        self.managers = frozenset(managers)


class Connection:
    """Requests to the cluster of one kubeconfig context."""

    def __init__(self, configuration: client.Configuration, context: str) -> None:
        self.configuration = configuration
        self.context = context
        self._client = client.ApiClient(configuration)

    @property
    def server(self) -> str:
        return str(self.configuration.host)

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        timeout = (CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S)
        response = self._send(method, path, query, body, {"Content-Type": content_type}, timeout)
        try:
            answer = json.loads(response.data)
        except (ValueError, urllib3.exceptions.HTTPError):
            raise UnavailableError(f"{self.server}{path} didn't answer with JSON: is it a Kubernetes API?") from None
        if not isinstance(answer, dict):
            raise UnavailableError(f"{self.server}{path} didn't answer with a JSON object: is it a Kubernetes API?")
        return answer

    def text(self, path: str, query: Query | None = None) -> str:
        response = self._send("GET", path, query, None, {}, (CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S))
        return str(response.data.decode("utf-8", "replace"))

    def stream(self, path: str, query: Query | None = None) -> urllib3.BaseHTTPResponse:
        """An open answer, which the caller closes."""
        answer: urllib3.BaseHTTPResponse = self._send(
            "GET", path, query, None, {}, (CONNECT_TIMEOUT_S, None), whole=False
        )
        return answer

    def new_core_api(self) -> "client.CoreV1Api":  # quoted: evaluating it imports every model, which takes a second
        """A new one for each websocket: the client replaces a method of its API object while it opens one."""
        return client.CoreV1Api(client.ApiClient(self.configuration))

    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        headers: dict[str, str],
        timeout: tuple[float, float | None],
        whole: bool = True,
    ) -> Any:
        pairs = [
            (key, str(value).lower() if isinstance(value, bool) else value) for key, value in (query or {}).items()
        ]
        request = self._client.param_serialize(
            method, path, query_params=pairs, header_params=headers, auth_settings=["BearerToken"]
        )
        method, url, headers, _, _ = request
        try:
            payload = json.dumps(body) if "+yaml" in headers.get("Content-Type", "") else body
            response = self._client.call_api(method, url, headers, payload, _request_timeout=timeout)
            if not 200 <= response.status <= 299 or whole:
                response.read()
        except ApiException as problem:
            raise UnavailableError(f"can't reach {self.server}: {_last_line(problem.reason)}{self._advice}") from None
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            raise UnavailableError(f"can't reach {self.server}: {_plain(problem)}{self._advice}") from None
        if not 200 <= response.status <= 299:
            raise self.error(response.status, response.data)
        return response if whole else response.response

    @property
    def _advice(self) -> str:
        return f"; is the cluster up, and is {self.context!r} the right context (kubectl config get-contexts)?"

    def error(self, status: int, data: bytes | None) -> ServeAppError:
        """The error for an answer that isn't 2xx."""
        message = _message_of(data) or f"status {status}"
        if status == 401 or (status == 403 and '"system:anonymous"' in message):
            return UnauthorizedError(
                f"{self.server} rejects the credentials of context {self.context!r}: they are expired or invalid; "
                "log in again (EKS: `aws sso login`, then `aws eks update-kubeconfig --name CLUSTER`)"
            )
        if status == 403:
            return ForbiddenError(f"{message}; ask for this permission, or use another --context")
        if status == 404:
            return NotFoundError(message)
        if status == 409:
            return ConflictError(message, _managers_in(data))
        if "field not declared in schema" in message:  # a server-side apply answers 500 for it
            return ConfigurationError(f"rejected by the cluster: {message}; its CRDs may be older than these manifests")
        if status in (400, 413, 422):
            return ConfigurationError(f"rejected by the cluster: {message}")
        return UnavailableError(f"{self.server} answered {status}: {message}")


def connect(kubeconfig: Path | None = None, context: str | None = None) -> Connection:
    """From --kubeconfig, else $KUBECONFIG, else ~/.kube/config; sends nothing yet."""
    location = str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
    if not any(Path(part).expanduser().is_file() for part in location.split(":") if part):
        raise ConfigurationError(
            f"no kubeconfig at {location}: pass --kubeconfig or set $KUBECONFIG "
            "(EKS: `aws eks update-kubeconfig --name CLUSTER` creates it)"
        )
    configuration = client.Configuration()
    configuration.retries = False  # failures are reported; waits retry themselves
    logging.getLogger("websocket").setLevel(logging.CRITICAL)
    try:
        name = context or config.list_kube_config_contexts(config_file=location)[1]["name"]
        config.load_kube_config(config_file=location, context=name, client_configuration=configuration)
    except config.ConfigException as problem:
        raise ConfigurationError(f"{location}: {_context_problem(location, context) or _last_line(problem)}") from None
    except (YAMLError, AttributeError, KeyError, TypeError, OSError) as problem:
        raise ConfigurationError(f"{location} isn't a valid kubeconfig: {_last_line(problem)}") from None
    return Connection(configuration, name)


def _context_problem(location: str, context: str | None) -> str:
    """Read without the client's loader, which can't list contexts without a current one."""
    try:
        found = KubeConfigMerger(location).config
    except config.ConfigException:
        return ""
    names = [one["name"] for one in found.value["contexts"]]
    known = f"known: {', '.join(names) or 'none'}"
    if context is None and not found.value.get("current-context"):
        return f"no current context: pass --context; {known}"
    if context and context not in names:
        return f"no context {context!r}; {known}"
    return ""


def _managers_in(data: bytes | None) -> list[str]:
    causes = (json.loads(data or b"{}").get("details") or {}).get("causes") or []
    return [found[1] for one in causes if (found := CONFLICT.search(one.get("message", "")))]


def _message_of(data: bytes | None) -> str:
    text = (data or b"").decode("utf-8", "replace")
    try:
        status = json.loads(text)
    except ValueError:
        return _last_line(text) if text.strip() else ""
    return str(status.get("message", "")) if isinstance(status, dict) else ""


def _plain(problem: BaseException) -> str:
    """The reason without the object that urllib3 puts before it."""
    reason = getattr(problem, "reason", None)
    text = _last_line(reason if isinstance(reason, BaseException) else problem)
    return text.rpartition(">: ")[2].rpartition("): ")[2] or text


def _last_line(problem: object) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1] if lines else type(problem).__name__
