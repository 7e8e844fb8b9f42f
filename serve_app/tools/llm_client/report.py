"""What `scripts/llm_client` prints and stores: a line for each request, the results file, the summary, the verdict."""

from collections import Counter
from collections.abc import Sequence

from rich import progress
from rich.console import Console

from serve_app.clients.llm.answer import Answer, Latency
from serve_app.clients.llm.stream import StreamOptions

SEPARATOR = "\n=========\n\n"
REASONS_SHOWN = 3


def format_line(request: StreamOptions, answer: Answer) -> str:
    return f"Model {request.model} - Request {answer.number}: {_measured(request, answer)}"


def _measured(request: StreamOptions, answer: Answer) -> str:
    if answer.error is not None:
        return f"ERROR: {answer.error}"
    last_s = answer.to_last_s or 0.0
    if answer.to_first_s is None:
        return f"no new text, after {_ms(last_s)}"
    if request.streaming:
        return f"first token {_ms(answer.to_first_s)}, last token {_ms(last_s)}, {_count(answer.chunks, 'chunk')}"
    return f"whole answer {_ms(last_s)}, {_rate(answer.characters, 'character', last_s)}"


def format_results(answers: Sequence[Answer]) -> str:
    """Answers in the order of their prompts; a failed one has its error and the text it got."""
    return "".join(f"{_result(answer)}\n{SEPARATOR}" for answer in answers)


def _result(answer: Answer) -> str:
    if answer.error is None:
        return answer.text
    return f"ERROR: {answer.error}" + (f"\n{answer.text}" if answer.text else "")


def format_summary(request: StreamOptions, answers: Sequence[Answer], wall_s: float) -> list[str]:
    good = [answer for answer in answers if answer.error is None]
    rows = [
        ("requests", str(len(answers))),
        ("failed", str(len(answers) - len(good))),
        ("wall time", f"{wall_s:.2f} s"),
    ]
    characters = _rate(sum(answer.characters for answer in good), "character", wall_s)
    to_last = _latency(Latency.of(answer.to_last_s for answer in good))
    if request.streaming:
        chunks = _rate(sum(answer.chunks for answer in good), "chunk", wall_s)
        rows.append(("time to first token", _latency(Latency.of(answer.to_first_s for answer in good))))
        rows.append(("time to last token", to_last))
        rows.append(("received", f"{chunks}; responses with new text, one per generation step"))
        rows.append(("generated", characters))
    else:
        rows.append(("time to whole answer", to_last))
        rows.append(("generated", f"{characters}; tokens are counted only with --streaming-mode"))
    return [f"  {name:<22}{value}" for name, value in rows]


def format_verdict(answers: Sequence[Answer]) -> list[str]:
    """PASS, or FAIL with the first reasons."""
    reasons = Counter(answer.error for answer in answers if answer.error is not None)
    if not reasons:
        return ["PASS: vLLM example"]
    lines = [f"FAIL: {reasons.total()} of {_count(len(answers), 'request')} failed"]
    lines += [f"  {count} × {reason}" for reason, count in list(reasons.items())[:REASONS_SHOWN]]
    if len(reasons) > REASONS_SHOWN:
        lines.append(f"  and {len(reasons) - REASONS_SHOWN} other reasons, in the results")
    return lines


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "-"
    return f"p50 {_ms(latency.p50_s)}, p95 {_ms(latency.p95_s)}, max {_ms(latency.max_s)}"


def _rate(count: int, name: str, time_s: float) -> str:
    return _count(count, name) + (f" ({count / time_s:.1f}/s)" if time_s > 0 else "")


def _count(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _ms(time_s: float) -> str:
    return f"{time_s * 1000:.1f} ms"


class Progress:
    """A line for each answer, above a progress bar if the output is a terminal."""

    def __init__(self, request: StreamOptions, total: int, console: Console, verbose: bool = False) -> None:
        self._request = request
        self._console = console
        self._verbose = verbose
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
        self._bar = progress.Progress(
            *columns, progress.TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self._bar.add_task(request.model, total=total)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_text(self, answer: Answer, new: str) -> None:
        if self._verbose:
            self._console.print(f"Request {answer.number} + {new!r}")

    def on_end(self, answer: Answer) -> None:
        self._bar.advance(self._task)
        self._console.print(format_line(self._request, answer))
