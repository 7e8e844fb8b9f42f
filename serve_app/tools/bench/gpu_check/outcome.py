"""A check from its start to its verdict: what was found, chosen and measured, and what was not, with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from serve_app.settings.detection import EngineKind
from serve_app.tools.bench.gpu_check.engines import LEFT_OUT, Choice, Device
from serve_app.tools.bench.gpu_check.fidelity import Expected
from serve_app.tools.bench.gpu_check.parts import BASELINE, Fidelity, Part, Reference, Rung
from serve_app.tools.bench.gpu_check.probes import Finding
from serve_app.tools.bench.report import throughput

PIPELINES = "D1, D2, D3"


@dataclass(frozen=True, slots=True)
class NotRun:
    """What was left out; what is not named means all of it."""

    reason: str
    engine: str | None = None
    size: str | None = None
    track: str | None = None
    kind: str | None = None

    def __str__(self) -> str:
        names = (self.engine or "every engine", self.size, f"track {self.track}" if self.track else None, self.kind)
        return f"{', '.join(filter(None, names))}: {self.reason}"


@dataclass(slots=True)
class Check:
    """Everything that a report is made from."""

    device: Device
    named: tuple[EngineKind, ...] = ()  # engines that were asked for by name
    findings: list[Finding] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    baseline_reasons: tuple[str, ...] = ()  # why track A can't run here; none: it can
    weights: dict[str, str] = field(default_factory=dict)  # by size
    missing_weights: dict[str, str] = field(default_factory=dict)  # reasons by size
    planned: list[Part] = field(default_factory=list)
    references: dict[str, tuple[Expected, ...]] = field(default_factory=dict)  # by size
    fidelity: list[Fidelity] = field(default_factory=list)
    rungs: list[Rung] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # reasons by engine
    interrupted: bool = False

    def hear(self, event: object) -> None:
        if isinstance(event, Reference):
            self.references[event.size] = event.pictures
        elif isinstance(event, Fidelity):
            self.fidelity.append(event)
        elif isinstance(event, Rung):
            self.rungs.append(event)

    @property
    def done(self) -> set[Part]:
        return {row.part for row in self.fidelity} | {rung.part for rung in self.rungs}

    def ratio(self, rung: Rung) -> float | None:
        """Images a second, by those of track A with the same weights; None where that was not measured."""
        for other in self.rungs:
            if (other.part.engine, other.part.size) == (BASELINE, rung.part.size) and throughput(other.row):
                return throughput(rung.row) / throughput(other.row)
        return None

    def not_run(self) -> Iterator[NotRun]:
        if self.baseline_reasons:
            yield NotRun("; ".join(self.baseline_reasons), BASELINE)
        for choice in self.choices:
            if not choice.runs:
                yield NotRun("; ".join(choice.reasons), choice.engine)
                continue
            if choice.pipeline_reasons:
                yield NotRun("; ".join(choice.pipeline_reasons), choice.engine, track=PIPELINES)
        yield from (NotRun(reason, size=size) for size, reason in self.missing_weights.items())
        for engine in dict.fromkeys(part.engine for part in self.planned):
            yield from self._left_of(engine)

    def _left_of(self, engine: str) -> Iterator[NotRun]:
        parts = [part for part in self.planned if part.engine == engine]
        left = [part for part in parts if part not in self.done]
        reason = self.failures.get(engine) or ("interrupted" if self.interrupted else "not reached")
        if left and left == parts:
            yield NotRun(reason, engine)
        else:
            yield from (NotRun(reason, engine, part.size, part.track, part.kind) for part in left)

    def complaints(self) -> Iterator[str]:
        """Why the check has not passed, the weightiest first."""
        if self.interrupted:
            yield "interrupted"
        yield from (f"{engine}: {reason}" for engine, reason in self.failures.items())
        measured = any(row.part.engine != BASELINE for row in self.fidelity)
        if not (measured or self.failures or self.interrupted):
            yield self._why_nothing()
        left = [part for part in self.planned if part not in self.done and part.engine not in self.failures]
        if left and not self.interrupted:
            yield f"not reached: {left[0]}"
        for choice in self.choices:
            if choice.engine in self.named and not choice.runs:
                yield f"{choice.engine} can't run here: {choice.reasons[0]}"
        for row in self.fidelity:
            yield from (f"{row.part}: {problem}" for problem in row.problems)
        for rung in self.rungs:
            yield from (f"{rung.part}: {problem}" for problem in problems_of(rung))

    def _why_nothing(self) -> str:
        why = next((finding.detail for finding in self.findings if finding.key == "gpu" and not finding.found), "")
        if self.device == "cuda" and why:
            return f"nothing was measured: {why}; --device cpu tries the flow on the processor"
        reasons = [f"{one.engine}: {one.reasons[0]}" for one in self.choices if one.reasons not in ((), LEFT_OUT)]
        return f"no engine was measured: {'; '.join([*reasons, *self.missing_weights.values()])}"


def problems_of(rung: Rung) -> list[str]:
    problems = [f"{count} × {error}" for error, count in rung.row.outcome.errors.items()]
    if not rung.row.outcome.took_ms:
        problems.append("nothing was answered in time")
    return [*problems, *rung.problems]
