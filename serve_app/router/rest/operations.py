"""What operators ask of the service: what it serves, whether it is ready, and whether it is warm."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serve_app.errors import UnavailableError
from serve_app.router.plane import DataPlane


class Operations:
    """The endpoints beside those that answer requests of users."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        return [
            Route("/tracks", self.tracks),
            Route("/health", self.health),
            Route("/warmup", self.warm_up, methods=["POST"]),
            Route("/warmup_status", self.warm_up_status),
        ]

    async def tracks(self, _request: Request) -> Response:
        described = await self._plane.deployments.describe()
        rows = []
        for path, served in self._plane.tracks.items():
            card = (described[served.upstream.name] or {}).get("tracks", {}).get(served.track.target)
            model = {"name": served.track.model} | (
                {"backend": card.backend, "device": card.device, "precision": card.precision} if card else {}
            )
            rows.append(
                {"track": served.track.design.name, "path": path, "size": served.track.size, "model": model,
                 "summary": served.track.design.summary, "ready": card is not None}
            )  # fmt: skip
        return JSONResponse({"tracks": rows})

    async def health(self, _request: Request) -> Response:
        """Always live; ready when every required deployment answers, or is too busy to."""
        ready, presence = await self._plane.deployments.health()
        body = {"live": True, "ready": ready, "deployments": presence}
        return JSONResponse(body, 200 if ready else UnavailableError.status)

    async def warm_up(self, _request: Request) -> Response:
        """Starts it on every replica of every deployment; /warmup_status follows it."""
        await self._plane.deployments.warm_up()
        return JSONResponse(await self._plane.deployments.warm_up_status(), 202)

    async def warm_up_status(self, _request: Request) -> Response:
        return JSONResponse(await self._plane.deployments.warm_up_status())
