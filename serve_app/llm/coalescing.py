"""Sends text of a stream together where many streams are under way: a message through Serve costs more than a token."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, suppress
from itertools import groupby

Piece = tuple[int, str] | int  # status and text, or a number of tokens
PIECES_PER_S = 100  # of a replica, from which on its streams wait for more text
INTERVAL, INTERVAL_MS = "serve_app_stream_interval_ms", 50.0  # in the configuration that a replica is given


class Coalescing:
    """The streams of one replica. Each event stays as it is; a stream's first text never waits."""

    def __init__(self, most_ms: float = INTERVAL_MS) -> None:
        self._most_s = most_ms / 1e3
        self._running = 0

    async def join(self, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[Piece]:
        """The same pieces, those together that came within an interval; it grows with the number of streams."""
        source = _Source(pieces)
        self._running += 1
        try:
            while taken := await source.take():
                for piece in joined(taken):
                    yield piece
                await source.rest(min(self._most_s, self._running / PIECES_PER_S))
        finally:
            self._running -= 1
            await source.close()


class _Source:
    """Reads on while what it has read waits."""

    def __init__(self, pieces: AsyncGenerator[Piece]) -> None:
        self._waiting: list[Piece] = []
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._read(pieces))

    async def _read(self, pieces: AsyncGenerator[Piece]) -> None:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    self._waiting.append(piece)
                    self._arrived.set()
        finally:
            self._arrived.set()

    async def take(self) -> list[Piece]:
        """What has come since the last time, at least one piece; nothing once all have been taken."""
        await self._arrived.wait()
        self._arrived.clear()
        taken, self._waiting = self._waiting, []
        if not taken:
            await self._task  # raises what ended it
        return taken

    async def rest(self, seconds: float) -> None:
        """Until then, or until there is no more to come."""
        await asyncio.wait({self._task}, timeout=seconds)
        if self._task.done():
            self._arrived.set()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Texts of one status as one, numbers as their sum."""
    for status, group in groupby(pieces, lambda piece: 0 if isinstance(piece, int) else piece[0]):
        together = list(group)
        if status:
            yield status, "".join(piece[1] for piece in together if not isinstance(piece, int))
        else:
            yield sum(piece for piece in together if isinstance(piece, int))
