"""Where a command shows progress: a terminal that is redrawn, plain lines for a log, or JSON for a program."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from serve_app.tools.deploy.status.model import ServiceStatus
from serve_app.tools.deploy.status.problems import Problem
from serve_app.tools.deploy.status.report import Line, as_json, changes, report


class Screen(Protocol):
    def say(self, text: str, style: str = "") -> None: ...
    def show(self, lines: Sequence[Line]) -> None: ...
    def update(self, seen: ServiceStatus, problems: tuple[Problem, ...]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainScreen:
    """A line for each change; each problem once."""

    def __init__(self) -> None:
        self._before: ServiceStatus | None = None
        self._problems: tuple[Problem, ...] = ()
        self._printed: set[Problem] = set()

    def say(self, text: str, style: str = "") -> None:
        print(text, flush=True)

    def show(self, lines: Sequence[Line]) -> None:
        print("\n".join(line.text for line in lines), flush=True)

    def update(self, seen: ServiceStatus, problems: tuple[Problem, ...]) -> None:
        for line in changes(self._before, seen):
            self.say(line.text)
        for problem in problems:
            if problem in self._problems and problem not in self._printed:  # seen twice: it didn't pass by itself
                self._printed.add(problem)
                self.say(f"waiting: {problem}")
        self._before, self._problems = seen, problems

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class JsonScreen(PlainScreen):
    """One line of JSON for each status that differs from the previous one; everything else goes to stderr."""

    def __init__(self) -> None:
        super().__init__()
        self._line = ""

    def say(self, text: str, style: str = "") -> None:
        print(text, file=sys.stderr, flush=True)

    def update(self, seen: ServiceStatus, problems: tuple[Problem, ...]) -> None:
        line = as_json(seen)
        if line != self._line:
            print(line, flush=True)
        self._line = line


class LiveScreen:
    """The whole report, redrawn in place during a wait; messages stay above it."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)  # so that a copied line stays one line

    def show(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.say(line.text, line.style)

    def update(self, seen: ServiceStatus, problems: tuple[Problem, ...]) -> None:
        self._live.update(Group(*(Text(line.text, style=line.style) for line in report(seen, problems))))

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def new_screen() -> Screen:
    return LiveScreen() if sys.stdout.isatty() else PlainScreen()
