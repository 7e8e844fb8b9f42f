"""Forms with pictures, and the thresholds beside them."""

import asyncio
from collections.abc import Iterator

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from serve_app.errors import ServeAppError
from serve_app.router.rest.pictures import read_flag, read_pictures, read_thresholds
from serve_app.settings import DetectionSettings

PIECE_BYTES = 7
LOOP = asyncio.new_event_loop()
DEFAULTS = DetectionSettings()


def take(data: bytes) -> None:
    """The first line is the content type, the second one the query; the rest is the body."""
    content_type, _, rest = data.partition(b"\n")
    content_type = content_type.replace(b"\0", b"")  # which HTTP servers refuse in a header
    query, _, body = rest.partition(b"\n")
    _read(content_type, [body])
    _read(content_type, [body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)])
    parameters = QueryParams(query)
    read_thresholds(parameters, DEFAULTS)
    read_flag(parameters, "annotate")


def _read(content_type: bytes, pieces: list[bytes]) -> None:
    """In the pieces in which it arrives."""
    messages: Iterator[dict[str, object]] = iter(
        [*({"type": "http.request", "body": piece, "more_body": True} for piece in pieces), {"type": "http.request"}]
    )

    async def receive():
        return next(messages)

    scope = {"type": "http", "app": None, "headers": [(b"content-type", content_type)]}
    try:
        LOOP.run_until_complete(read_pictures(Request(scope, receive)))
    except HTTPException as problem:  # Starlette's own, which the router answers as it is
        status = problem.status_code
    except ServeAppError as problem:
        status = problem.status
    else:
        return
    assert status == 400
