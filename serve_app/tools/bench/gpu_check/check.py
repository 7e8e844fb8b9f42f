"""The state of a check: what was found, planned and measured; and from it what was not run, and the problems."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from serve_app.settings.detection import EngineKind
from serve_app.tools.bench.gpu_check.engines import LEFT_OUT, Device, EngineChoice
from serve_app.tools.bench.gpu_check.fidelity import Expected
from serve_app.tools.bench.gpu_check.jobs import BASELINE, Fidelity, Part, Reference, Speed
from serve_app.tools.bench.gpu_check.probes import Finding


@dataclass(frozen=True, slots=True)
class NotRun:
    """Something that was not measured; None stands for all."""

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
    device: Device
    requested: tuple[EngineKind, ...] = ()  # by --engine
    findings: list[Finding] = field(default_factory=list)
    choices: list[EngineChoice] = field(default_factory=list)
    baseline_reasons: tuple[str, ...] = ()  # why track A can't run
    weights: dict[str, str] = field(default_factory=dict)  # by size
    missing_weights: dict[str, str] = field(default_factory=dict)  # reasons by size
    planned: list[Part] = field(default_factory=list)
    references: dict[str, tuple[Expected, ...]] = field(default_factory=dict)  # by size
    fidelity: list[Fidelity] = field(default_factory=list)
    ladder: list[Speed] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)  # reasons by engine
    interrupted: bool = False

    def add(self, event: object) -> None:
        if isinstance(event, Reference):
            self.references[event.size] = event.pictures
        elif isinstance(event, Fidelity):
            self.fidelity.append(event)
        elif isinstance(event, Speed):
            self.ladder.append(event)

    def measured(self) -> list[Fidelity | Speed]:
        return [*self.fidelity, *self.ladder]

    def missing_parts(self) -> list[Part]:
        done = {one.part for one in self.measured()}
        return [part for part in self.planned if part not in done]

    def ratio_to_a(self, speed: Speed) -> float | None:
        """Images/s divided by those of track A with the same weights."""
        for other in self.ladder:
            baseline = other.row.result.throughput
            if (other.part.engine, other.part.size) == (BASELINE, speed.part.size) and baseline:
                return speed.row.result.throughput / baseline
        return None

    def not_run(self) -> Iterator[NotRun]:
        if self.baseline_reasons:
            yield NotRun("; ".join(self.baseline_reasons), BASELINE)
        for choice in self.choices:
            if not choice.runs:
                yield NotRun("; ".join(choice.reasons), choice.engine)
            elif choice.pipeline_reasons:
                yield NotRun("; ".join(choice.pipeline_reasons), choice.engine, track="D1, D2, D3")
        yield from (NotRun(reason, size=size) for size, reason in self.missing_weights.items())
        missing = self.missing_parts()
        for engine in dict.fromkeys(part.engine for part in missing):
            reason = self.failures.get(engine) or ("interrupted" if self.interrupted else "not reached")
            parts = [part for part in missing if part.engine == engine]
            if parts == [part for part in self.planned if part.engine == engine]:
                yield NotRun(reason, engine)
            else:
                yield from (NotRun(reason, engine, part.size, part.track, part.kind) for part in parts)

    def problems(self) -> Iterator[str]:
        """Why the check has not passed, the most important first."""
        if self.interrupted:
            yield "interrupted"
        yield from (f"{engine}: {reason}" for engine, reason in self.failures.items())
        has_engine = any(one.part.engine != BASELINE for one in self.fidelity)
        if not (has_engine or self.failures or self.interrupted):
            yield self._why_nothing_was_measured()
        missing = [part for part in self.missing_parts() if part.engine not in self.failures]
        if missing and not self.interrupted:
            yield f"not reached: {missing[0]}"
        for choice in self.choices:
            if choice.engine in self.requested and not choice.runs:
                yield f"{choice.engine} can't run here: {choice.reasons[0]}"
        for one in self.measured():
            yield from (f"{one.part}: {problem}" for problem in one.problems)

    def _why_nothing_was_measured(self) -> str:
        gpu = next((finding for finding in self.findings if finding.key == "gpu"), None)
        if self.device == "cuda" and gpu and not gpu.found:
            return f"nothing was measured: {gpu.detail}; --device cpu tries the check on the processor"
        reasons = [f"{one.engine}: {one.reasons[0]}" for one in self.choices if one.reasons not in ((), LEFT_OUT)]
        return f"no engine was measured: {'; '.join([*reasons, *self.missing_weights.values()])}"
