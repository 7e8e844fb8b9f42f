"""A row of steps: which of them run, what is told of each, and what a failure says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.errors import ConfigurationError, ServeAppError, near_miss


@dataclass(frozen=True, slots=True)
class Step:
    """Each looks at what is there and makes the rest, so that it may run at any time, and again."""

    name: str
    purpose: str
    run: Callable[[], None]


def chosen(steps: Sequence[Step], only: Sequence[str], start: str | None) -> list[Step]:
    names = [step.name for step in steps]
    for name in (*only, *([start] if start else [])):
        if name not in names:
            hint = near_miss(name, names)
            raise ConfigurationError(f"no step {name!r}{hint}; the steps are {', '.join(names)}")
    if only and start:
        raise ConfigurationError("--only and --from exclude each other: name the steps, or the first one")
    if only:
        return [step for step in steps if step.name in only]
    return list(steps[names.index(start) :] if start else steps)


def run_steps(steps: Sequence[Step], say: Callable[[str], None], command: str) -> None:
    for number, step in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {step.name}: {step.purpose}")
        try:
            step.run()
        except ServeAppError as problem:
            raise type(problem)(
                f"step {step.name}: {problem}\nwhat was made stays; when this is mended, run {command} again: "
                f"it goes on (or `{command} --from {step.name}`)"
            ) from None
