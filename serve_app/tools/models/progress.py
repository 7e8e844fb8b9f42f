"""Progress of a transfer: a bar on a terminal, a line every few seconds elsewhere."""

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

LINE_EVERY_S = 5.0
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def report(line: str) -> None:
    print(line, flush=True)


def readable(size: float) -> str:
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {UNITS[unit]}" if unit else f"{size:.0f} B"


class TransferProgress:
    """Counts bytes from several threads."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._lock = threading.Lock()
        self._reported = time.monotonic()
        console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> "TransferProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._bar.update(self._task, completed=self._done)
            now = time.monotonic()
            if self._bar.disable and now - self._reported >= LINE_EVERY_S:
                self._reported = now
                report(f"{self._what}: {readable(self._done)} of {readable(self._total)}")
