"""Work on large bodies, in processes beside the router: its event loop goes on, and what takes too long is ended.

By hand, since the pools of the standard library can't end a task that runs.
"""

import asyncio
import os
import pickle
import signal
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from serve_app.errors import UnavailableError
from serve_app.types.deadlines import until

INLINE_BYTES = 64 << 10  # less is done at once: a millisecond or two
PROCESSES = 2
MAX_RESIDENT_BYTES = 256 << 20  # a process that has grown beyond ends after its task, as Python keeps memory
GIVES_WAY = 4  # of niceness, to the routers, which answer meanwhile
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PIECE_BYTES = 256 << 10
SIZE = struct.Struct("<Q")
Result = TypeVar("Result")


class Offload:
    """A few processes, started when first needed."""

    def __init__(self, processes: int = PROCESSES) -> None:
        self._room = asyncio.Semaphore(processes)
        self._idle: list[Process] = []

    async def run(
        self, function: Callable[..., Result], *arguments: Any, size: int, deadline: float | None = None
    ) -> Result:
        """What the function returns or raises; `size` says how many bytes it works on."""
        if size <= INLINE_BYTES:
            return function(*arguments)
        async with until(deadline, "the request could not be read before its deadline"), self._room:
            process = await self._process()
            try:
                stays, succeeded, result = await _ask(process, function, arguments)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise UnavailableError("the process that worked on the request has ended; try again") from None
            except BaseException:
                process.kill()
                raise
            if stays:
                self._idle.append(process)
        if not succeeded:
            raise result
        return result  # type: ignore[no-any-return]

    async def close(self) -> None:
        """End the processes, which also end when the router does."""
        while self._idle:
            process = self._idle.pop()
            assert process.stdin
            process.stdin.close()
            await process.wait()

    async def _process(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None and process.stdout and not process.stdout.at_eof():
                return process
        code = (
            f"import os, sys; os.nice({GIVES_WAY}); sys.path[:] = {sys.path!r}; "
            "from serve_app.router.offload import main; main()"
        )
        return await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=PIPE, stdout=PIPE)


async def _ask(process: Process, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, bool, Any]:
    assert process.stdin
    assert process.stdout
    # bodies and views of them go over as they are, a piece at a time: no copy of them is made here
    whole = tuple(
        pickle.PickleBuffer(one) if isinstance(one, bytes | bytearray | memoryview) else one for one in arguments
    )
    for part in _frames((function, whole)):
        for start in range(0, len(part), PIECE_BYTES):
            process.stdin.write(memoryview(part)[start : start + PIECE_BYTES])
            await process.stdin.drain()
    return await _receive(process.stdout)  # type: ignore[no-any-return]


def _frames(content: Any) -> list[bytes | memoryview]:
    """How many buffers there are, the size of each part, and the parts: the pickle and its buffers."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(content, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview] = [text, *(buffer.raw() for buffer in buffers)]
    return [SIZE.pack(len(parts)), *(SIZE.pack(len(part)) for part in parts), *parts]


async def _receive(stream: asyncio.StreamReader) -> Any:
    (count,) = SIZE.unpack(await stream.readexactly(SIZE.size))
    sizes = [SIZE.unpack(await stream.readexactly(SIZE.size))[0] for _ in range(count)]
    text, *buffers = [await stream.readexactly(size) for size in sizes]
    return pickle.loads(text, buffers=buffers)


def work(requests: BinaryIO, answers: BinaryIO) -> None:
    """One task after the other, until the router is gone or memory has grown."""

    def take(size: int) -> bytes:
        data = requests.read(size)
        if len(data) < size:
            sys.exit()
        return data

    stays = True
    while stays:
        (count,) = SIZE.unpack(take(SIZE.size))
        text, *buffers = [take(size) for size in [SIZE.unpack(take(SIZE.size))[0] for _ in range(count)]]
        function, arguments = pickle.loads(text, buffers=buffers)
        try:
            succeeded, result = True, function(*arguments)
        except Exception as problem:
            succeeded, result = False, problem
        del text, buffers, function, arguments
        stays = _resident_bytes() < MAX_RESIDENT_BYTES
        answers.writelines(_frames((stays, succeeded, result)))
        answers.flush()
        del result


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statistics:
        return int(statistics.read().split()[1]) * PAGE_BYTES


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the router decides
    work(sys.stdin.buffer, sys.stdout.buffer)
