"""Client of the service's HTTP API for the page, and headlines of its errors for visitors."""

from typing import Any

import gradio as gr
import httpx

from serve_app.clients.errors import error_of, unreachable
from serve_app.errors import (
    DeadlineExceededError,
    NotAnImageError,
    NotFoundError,
    PayloadTooLargeError,
    ServeAppError,
    TooManyRequestsError,
    UnavailableError,
    UnreadableImageError,
)
from serve_app.keys.headers import given_key, key_headers

TIMEOUT_S = 10.0
HEADLINES: dict[type[ServeAppError], str] = {
    NotAnImageError: "This is not a picture",
    UnreadableImageError: "This picture can't be decoded",
    PayloadTooLargeError: "This is too large",
    NotFoundError: "This is not served",
    TooManyRequestsError: "Too many requests: try again in a moment",
    UnavailableError: "The service is busy or not ready: try again in a moment",
    DeadlineExceededError: "This took too long",
}


def headline_of(error: ServeAppError) -> str:
    """What happened, for visitors who don't know status codes."""
    return next((text for kind, text in HEADLINES.items() if isinstance(error, kind)), "The request failed")


class Service:
    """The service at `url`."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url, self.key = url, key

    def seen_by(self, visitor: gr.Request | None) -> "Service":
        """With the key that the visitor's browser sends, where the service asks for keys."""
        return Service(self.url, given_key(visitor.headers)) if visitor else self

    async def tracks(self) -> list[dict[str, Any]]:
        return list((await self._request("GET", "/tracks"))["tracks"])

    async def language_models(self) -> dict[str, str]:
        """Names that requests may use, each with the model that answers: for an adapter, its base model."""
        return {model["id"]: model["root"] for model in (await self._request("GET", "/v1/models"))["data"]}

    async def health(self) -> dict[str, Any]:
        return dict(await self._request("GET", "/health", accepted=UnavailableError.status))

    async def warmup_status(self) -> dict[str, Any]:
        return dict((await self._request("GET", "/warmup_status"))["deployments"])

    async def index(self) -> list[dict[str, Any]]:
        return list(await self._request("POST", "/v2/repository/index"))

    async def statistics(self) -> list[dict[str, Any]]:
        return list((await self._request("GET", "/v2/models/stats"))["model_stats"])

    async def _request(self, method: str, path: str, accepted: int = 200) -> Any:
        try:
            async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S, headers=key_headers(self.key)) as client:
                answer = await client.request(method, path)
        except httpx.HTTPError as error:
            raise unreachable(self.url, error) from None
        try:
            document = answer.json()
        except ValueError:
            raise error_of(answer.status_code, f"{path} answered {answer.status_code}") from None
        if not answer.is_success and not (answer.status_code == accepted and "error" not in document):
            raise error_of(answer.status_code, str(document.get("error", document)))
        return document
