"""What is told while bytes move: a bar where a person looks at a terminal, a line every few seconds elsewhere."""

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

LINE_EVERY_S = 5.0
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def tell(line: str) -> None:
    print(line, flush=True)


def readable(size: float) -> str:
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{size:.0f} B"


class Transfer:
    """Counts from several threads; `advance` may go back where something has to be done again."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._told = time.monotonic()
        console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
        self._terminal = console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not self._terminal)
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> "Transfer":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._bar.update(self._task, completed=self._done)
            now = time.monotonic()
            if not self._terminal and now - self._told >= LINE_EVERY_S:
                self._told = now
                tell(f"{self._what}: {readable(self._done)} of {readable(self._total)}")
