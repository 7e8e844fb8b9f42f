"""How much a request may send: counted as it comes, whatever its headers say."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import PayloadTooLargeError

MAX_DIGITS = 19


class LimitBody:
    """Refuses a body over the limit at its header, or at the byte that goes over."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        excess = announced.isdigit() and (len(announced) > MAX_DIGITS or int(announced) > self._max_bytes)
        received = 0

        async def counted() -> Message:
            nonlocal received
            if excess:
                raise self._refusal()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._refusal()
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"the body is over the limit of {self._max_bytes} bytes")
