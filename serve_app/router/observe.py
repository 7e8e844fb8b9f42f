"""Counts HTTP requests for the metrics, from their first byte to the last byte of the answer."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.router.requests import path_of
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.telemetry.observation import CANCELLED

GRPC = "kserve-grpc"
# By the prefix of a path, the first that fits. Health checks and the like are not counted.
PROTOCOLS = (
    ("/v2/health", ""),
    ("/v2", "kserve-http"),
    ("/v1", "openai"),
    ("/predict/", "rest"),
    ("/pytorch/predict/", "rest"),
)


class ObserveRequests:
    """The status is the answer's, or that of the error which ended a stream."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        protocol = protocol_of(path_of(scope)) if scope["type"] == "http" else ""
        if not protocol:
            await self._app(scope, receive, send)
            return
        left = ended = False
        with self._metrics.observe(protocol) as observation:

            async def counted_receive() -> Message:
                nonlocal left
                message = await receive()
                left |= message["type"] == "http.disconnect"
                observation.received_bytes += len(message.get("body", b""))
                return message

            async def counted_send(message: Message) -> None:
                nonlocal ended
                if message["type"] == "http.response.start":
                    observation.status = message["status"]
                else:
                    observation.sent_bytes += len(message.get("body", b""))
                    ended = not message.get("more_body", False)
                await send(message)

            observation.status = 500  # unless an answer begins
            await self._app(scope, counted_receive, counted_send)
            if left and not ended:
                observation.status = CANCELLED


def protocol_of(path: str) -> str:
    return next((protocol for prefix, protocol in PROTOCOLS if path.startswith(prefix)), "")
