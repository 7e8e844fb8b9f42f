"""Gives the Prometheus text of an engine on to Ray's pipeline, under the same names and labels."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.samples import Sample
from ray.serve.metrics import Counter, Gauge

GROWING = ("_total", "_count", "_sum", "_bucket")  # the samples of a family that only ever grow
Series = tuple[str, tuple[tuple[str, str], ...]]


class Mirror:
    """Made inside a replica: there Serve adds the labels `deployment`, `replica` and `application`."""

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        self._seen: dict[Series, float] = {}

    def update(self, families: Iterable[Metric]) -> None:
        """Counters grow by what they grew; one that was reset, as when a model is loaded again, goes on from there."""
        now: dict[Series, float] = {}
        for family in families:
            for sample in family.samples:
                growing = family.type in ("counter", "histogram", "summary") and sample.name.endswith(GROWING)
                name = sample.name.removesuffix("_total") if growing else sample.name
                metric = self._metric(name, family.documentation, tuple(sample.labels), growing)
                tags = dict.fromkeys(self._keys[name], "") | sample.labels
                series = (name, tuple(tags.items()))
                now[series] = sample.value
                if not growing:
                    metric.set(sample.value, tags)
                elif growth := self._growth(series, sample):
                    metric.inc(growth, tags)
        for name, labels in self._seen.keys() - now.keys():
            if isinstance(gauge := self._metrics[name], Gauge):  # what isn't there any more holds nothing
                gauge.set(0, dict(labels))
        self._seen = now

    def _growth(self, series: Series, sample: Sample) -> float:
        before = self._seen.get(series, 0.0)
        return float(sample.value - before if sample.value >= before else sample.value)

    def _metric(self, name: str, documentation: str, keys: tuple[str, ...], growing: bool) -> Counter | Gauge:
        if name not in self._metrics:
            self._metrics[name] = (Counter if growing else Gauge)(name, documentation, keys)
            self._keys[name] = keys
        return self._metrics[name]
