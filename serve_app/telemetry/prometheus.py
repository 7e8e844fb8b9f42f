"""Republishes an engine's Prometheus metrics through Ray's, under the same names and labels."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.samples import Sample
from ray.serve.metrics import Counter, Gauge

CUMULATIVE = ("_total", "_count", "_sum", "_bucket")  # suffixes of samples that only grow
Series = tuple[str, tuple[tuple[str, str], ...]]


class MetricsForwarder:
    """Create it inside a replica: there Serve adds the labels `deployment`, `replica` and `application`."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._last: dict[Series, float] = {}

    def update(self, families: Iterable[Metric]) -> None:
        """Publish a reading: counters by their growth since the last one, gauges by their value.

        A counter that the engine has reset, as when a model is loaded again, continues from its old value.
        """
        now: dict[Series, float] = {}
        for family in families:
            for sample in family.samples:
                cumulative = family.type in ("counter", "histogram", "summary") and sample.name.endswith(CUMULATIVE)
                name = sample.name.removesuffix("_total") if cumulative else sample.name
                metric = self._metric(name, family.documentation, tuple(sample.labels), cumulative)
                labels = dict.fromkeys(self._labels[name], "") | sample.labels
                series = (name, tuple(labels.items()))
                now[series] = sample.value
                if not cumulative:
                    metric.set(sample.value, labels)
                elif growth := self._growth(series, sample):
                    metric.inc(growth, labels)
        for name, pairs in self._last.keys() - now.keys():
            if isinstance(gauge := self._metrics[name], Gauge):  # an unloaded model has nothing pending
                gauge.set(0, dict(pairs))
        self._last = now

    def _growth(self, series: Series, sample: Sample) -> float:
        before = self._last.get(series, 0.0)
        return float(sample.value - before if sample.value >= before else sample.value)

    def _metric(self, name: str, documentation: str, labels: tuple[str, ...], cumulative: bool) -> Counter | Gauge:
        if name not in self._metrics:
            self._metrics[name] = (Counter if cumulative else Gauge)(name, documentation, labels)
            self._labels[name] = labels
        return self._metrics[name]
