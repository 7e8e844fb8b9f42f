"""The service's public HTTP API, as the page asks it: documents, or errors in words for a visitor."""

from typing import Any

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

TIMEOUT_S = 10.0
HEADLINES: dict[type[ServeAppError], str] = {
    NotAnImageError: "This is no picture",
    UnreadableImageError: "This picture can't be read",
    PayloadTooLargeError: "This is too large",
    NotFoundError: "This is not served",
    TooManyRequestsError: "Too many requests: try again in a moment",
    UnavailableError: "The service is busy or not ready: try again in a moment",
    DeadlineExceededError: "This took too long",
}


def headline_of(problem: ServeAppError) -> str:
    """What happened, for somebody who doesn't know status codes."""
    return next((text for kind, text in HEADLINES.items() if isinstance(problem, kind)), "The request failed")


class Service:
    """Documents of the service at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def tracks(self) -> list[dict[str, Any]]:
        return list((await self._ask("GET", "/tracks"))["tracks"])

    async def languages(self) -> dict[str, str]:
        """Names to ask for, each with the model that answers: an adapter's is another's."""
        return {model["id"]: model["root"] for model in (await self._ask("GET", "/v1/models"))["data"]}

    async def health(self) -> dict[str, Any]:
        return dict(await self._ask("GET", "/health", also=UnavailableError.status))

    async def warmth(self) -> dict[str, Any]:
        return dict((await self._ask("GET", "/warmup_status"))["deployments"])

    async def index(self) -> list[dict[str, Any]]:
        return list(await self._ask("POST", "/v2/repository/index"))

    async def statistics(self) -> list[dict[str, Any]]:
        return list((await self._ask("GET", "/v2/models/stats"))["model_stats"])

    async def _ask(self, method: str, path: str, also: int = 200) -> Any:
        try:
            async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S) as client:
                answer = await client.request(method, path)
        except httpx.HTTPError as problem:
            raise unreachable(self.url, problem) from None
        try:
            document = answer.json()
        except ValueError:
            raise error_of(answer.status_code, f"{path} answered {answer.status_code}") from None
        if not answer.is_success and not (answer.status_code == also and "error" not in document):
            raise error_of(answer.status_code, str(document.get("error", document)))
        return document
