"""The search: settings of a config, the points they reach, and which are tried and which is best."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

PASSES = 3  # over all parameters, at most
BETTER = 1.01  # less is noise
UNITS = {
    "instances": "instances", "max_batch": "max batch", "delay_us": "µs delay", "threads": "threads",
    "streams": "streams",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """None is a parameter that the model does not have: batches, or the threads and streams of its engine."""

    instances: int
    max_batch: int | None = None
    delay_us: int | None = None
    threads: int | None = None
    streams: int | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> "Setting":
        batches, queues = config.max_batch_size > 0, config.HasField("dynamic_batching")
        return cls(
            instances=sum(group.count or 1 for group in config.instance_group) or 1,
            max_batch=config.max_batch_size if batches else None,
            delay_us=config.dynamic_batching.max_queue_delay_microseconds if queues else None,
            threads=_parameter(config, "threads"),
            streams=_parameter(config, "streams"),
        )

    def applied_to(self, config: ModelConfig) -> ModelConfig:
        """A copy of the config with these values."""
        changed = ModelConfig()
        changed.CopyFrom(config)
        group = changed.instance_group[0] if changed.instance_group else ModelInstanceGroup()
        group.count = self.instances
        del changed.instance_group[:]
        changed.instance_group.append(group)
        if self.max_batch is not None:
            changed.max_batch_size = self.max_batch
        if self.delay_us is not None:
            queue = changed.dynamic_batching
            queue.max_queue_delay_microseconds = self.delay_us
            preferred = [size for size in queue.preferred_batch_size if size <= changed.max_batch_size]
            queue.preferred_batch_size[:] = preferred
        for name in ("threads", "streams"):
            if (value := getattr(self, name)) is not None:
                changed.parameters[name].string_value = str(value)
        return changed

    def __str__(self) -> str:
        return ", ".join(f"{value} {UNITS[name]}" for name, value in asdict(self).items() if value is not None)


def _parameter(config: ModelConfig, name: str) -> int | None:
    return int(config.parameters[name].string_value) if name in config.parameters else None


@dataclass(frozen=True, slots=True)
class Space:
    """Values to try for each parameter that the model has."""

    start: Setting
    values: Mapping[str, Sequence[int]]

    def names(self) -> list[str]:
        return [one.name for one in fields(Setting) if getattr(self.start, one.name) is not None]

    def neighbours(self, setting: Setting, name: str) -> list[Setting]:
        """The settings that differ from this one in one parameter."""
        return [replace(setting, **{name: value}) for value in self.values[name] if value != getattr(setting, name)]

    def all(self) -> Iterator[Setting]:
        """Every combination, beginning with the start."""
        yield self.start
        names = self.names()
        for values in product(*(self.values[name] for name in names)):
            setting = replace(self.start, **dict(zip(names, values, strict=True)))
            if setting != self.start:
                yield setting

    def size(self, whole: bool) -> int:
        """The number of settings: of all combinations, or at least, of one parameter after the other."""
        if whole:
            return sum(1 for _ in self.all())
        return 1 + sum(len(self.neighbours(self.start, name)) for name in self.names())


@dataclass(frozen=True, slots=True)
class Point:
    """A setting measured with one number of clients."""

    setting: Setting
    clients: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, slots=True)
class Objective:
    """The highest rate with p99 within its bound, or the lowest p99 with the rate within its bound."""

    kind: str = "throughput"
    max_p99_ms: float | None = None
    min_rate: float = 0.0

    def allows(self, point: Point) -> bool:
        fast_enough = self.max_p99_ms is None or point.p99_ms <= self.max_p99_ms
        return fast_enough and point.rate >= self.min_rate and not point.errors and point.rate > 0

    def value(self, point: Point) -> float:
        """Higher is better."""
        return point.rate if self.kind == "throughput" else 1e3 / point.p99_ms

    def best(self, points: Iterable[Point]) -> Point | None:
        return max(filter(self.allows, points), key=self.value, default=None)


@dataclass(slots=True)
class Search:
    """`measure` is called once for each setting."""

    space: Space
    objective: Objective
    measure: Callable[[Setting], Sequence[Point]]
    points: dict[Setting, Sequence[Point]] = field(default_factory=dict)

    def try_all(self) -> None:
        for setting in self.space.all():
            self._value(setting)

    def try_one_at_a_time(self) -> None:
        """The best value of one parameter after the other, until none changes."""
        current = self.space.start
        value = self._value(current)
        for _ in range(PASSES):
            before = current
            for name in self.space.names():
                for candidate in self.space.neighbours(current, name):
                    if (found := self._value(candidate)) > value * BETTER:
                        current, value = candidate, found
            if current == before:
                return

    def _value(self, setting: Setting) -> float:
        if setting not in self.points:
            self.points[setting] = self.measure(setting)
        best = self.objective.best(self.points[setting])
        return self.objective.value(best) if best else 0.0

    def measured(self) -> list[Point]:
        return [point for points in self.points.values() for point in points]


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other point beats in both rate and p99, by p99."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.p99_ms, -point.rate)):
        if point.rate > 0 and not point.errors and (not kept or point.rate > kept[-1].rate):
            kept.append(point)
    return kept
