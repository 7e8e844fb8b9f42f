"""The least that a request can cost in Ray Serve: an application that sends each body back, without any work on it."""

from ray import serve
from starlette.types import Receive, Scope, Send

PATH = "/bare"
IMPORT_PATH = f"{__name__}:application"


class Echo:
    """An ASGI application. An object, as `serve.ingress` takes a function for one that makes the application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": bytes(body)})


@serve.ingress(Echo())
class Bare:
    """What `serve.ingress` wraps."""


_deployment = serve.deployment(Bare, name="bare", max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.01})
application = _deployment.bind()
