"""What a person reads of a run: a line a request, the results file, the summary and the verdict."""

from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from serve_app.clients.llm.answers import Answer, Spread, spread_of
from serve_app.clients.llm.messages import Question

SEPARATOR = "\n=========\n\n"
REASONS_SHOWN = 3


def line_of(question: Question, answer: Answer) -> str:
    return f"Model {question.model} - Request {answer.number}: {_measured(question, answer)}"


def _measured(question: Question, answer: Answer) -> str:
    if answer.error is not None:
        return f"ERROR: {answer.error}"
    last_s = answer.to_last_s or 0.0
    if answer.to_first_s is None:
        return f"no new text, after {_ms(last_s)}"
    if question.streaming:
        return f"first token {_ms(answer.to_first_s)}, last token {_ms(last_s)}, {_count(answer.chunks, 'chunk')}"
    return f"whole answer {_ms(last_s)}, {_rate(answer.characters, 'character', last_s)}"


def results_of(answers: Sequence[Answer]) -> str:
    """Each text once, in the order of the prompts; of a failed one its error, and what had come of it."""
    return "".join(f"{_result(answer)}\n{SEPARATOR}" for answer in answers)


def _result(answer: Answer) -> str:
    if answer.error is None:
        return answer.text
    return f"ERROR: {answer.error}" + (f"\n{answer.text}" if answer.text else "")


def summary_of(question: Question, answers: Sequence[Answer], wall_s: float) -> list[str]:
    good = [answer for answer in answers if answer.error is None]
    rows = [
        ("requests", str(len(answers))),
        ("failed", str(len(answers) - len(good))),
        ("wall time", f"{wall_s:.2f} s"),
    ]
    characters = _rate(sum(answer.characters for answer in good), "character", wall_s)
    to_last = _spread(spread_of(answer.to_last_s for answer in good))
    if question.streaming:
        chunks = _rate(sum(answer.chunks for answer in good), "chunk", wall_s)
        rows.append(("time to first token", _spread(spread_of(answer.to_first_s for answer in good))))
        rows.append(("time to last token", to_last))
        rows.append(("received", f"{chunks}; responses with new text, one a generation step"))
        rows.append(("generated", characters))
    else:
        rows.append(("time to whole answer", to_last))
        rows.append(("generated", f"{characters}; tokens show in --streaming-mode only"))
    return [f"  {name:<22}{value}" for name, value in rows]


def verdict_of(answers: Sequence[Answer]) -> list[str]:
    """One line, and under a failure the first reasons."""
    reasons = Counter(answer.error for answer in answers if answer.error is not None)
    if not reasons:
        return ["PASS: vLLM example"]
    lines = [f"FAIL: {reasons.total()} of {_count(len(answers), 'request')} failed"]
    lines += [f"  {count} × {reason}" for reason, count in list(reasons.items())[:REASONS_SHOWN]]
    if len(reasons) > REASONS_SHOWN:
        lines.append(f"  and {len(reasons) - REASONS_SHOWN} other reasons, in the results")
    return lines


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"p50 {_ms(spread.p50_s)}, p95 {_ms(spread.p95_s)}, max {_ms(spread.max_s)}"


def _rate(count: int, name: str, time_s: float) -> str:
    return _count(count, name) + (f" ({count / time_s:.1f}/s)" if time_s > 0 else "")


def _count(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _ms(time_s: float) -> str:
    return f"{time_s * 1000:.1f} ms"


class Reporter:
    """Lines while it happens, over a bar where a person looks at a terminal."""

    def __init__(self, question: Question, total: int, console: Console, verbose: bool = False) -> None:
        self._question = question
        self._console = console
        self._verbose = verbose
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(question.model, total=total)

    def __enter__(self) -> "Reporter":
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_text(self, answer: Answer, new: str) -> None:
        if self._verbose:
            self._console.print(f"Request {answer.number} + {new!r}")

    def on_end(self, answer: Answer) -> None:
        self._progress.advance(self._task)
        self._console.print(line_of(self._question, answer))
