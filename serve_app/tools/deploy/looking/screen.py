"""Where a command shows what goes on: a terminal that is redrawn, or plain lines that a log can keep."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from serve_app.tools.deploy.looking.explaining import Reason
from serve_app.tools.deploy.looking.observation import Observation
from serve_app.tools.deploy.looking.telling import Line, changes, report


class Screen(Protocol):
    def say(self, text: str, style: str = "") -> None: ...
    def show(self, lines: Sequence[Line]) -> None: ...
    def update(self, seen: Observation, reasons: tuple[Reason, ...]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainScreen:
    """A line for each change, each reason once."""

    def __init__(self) -> None:
        self._before: Observation | None = None
        self._reasons: tuple[Reason, ...] = ()
        self._told: set[Reason] = set()

    def say(self, text: str, style: str = "") -> None:
        print(text, flush=True)

    def show(self, lines: Sequence[Line]) -> None:
        print("\n".join(line.text for line in lines), flush=True)

    def update(self, seen: Observation, reasons: tuple[Reason, ...]) -> None:
        for line in changes(self._before, seen):
            self.say(line.text)
        for reason in reasons:
            if reason in self._reasons and reason not in self._told:  # what passes by itself isn't worth a line
                self._told.add(reason)
                self.say(f"waiting: {reason}")
        self._before, self._reasons = seen, reasons

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class LiveScreen:
    """The whole report, redrawn in place while the wait lasts; what is said stays above it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)  # a line that is copied stays one

    def show(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.say(line.text, line.style)

    def update(self, seen: Observation, reasons: tuple[Reason, ...]) -> None:
        self._live.update(_drawn(report(seen, reasons)))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def _drawn(lines: Sequence[Line]) -> Group:
    return Group(*(Text(line.text, style=line.style) for line in lines))


def new_screen() -> Screen:
    return LiveScreen() if sys.stdout.isatty() else PlainScreen()
