"""What a Triton replica tells of itself: Triton's metrics to Ray's pipeline, its queues to Serve's autoscaling."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from serve_app.telemetry.mirror import Mirror
from serve_app.telemetry.pressure import QueueWindow
from serve_app.triton.engine import Engine
from serve_app.triton.protocol import Protocol

PROOF = "python_backend_proof"  # the embedded engine's own model, gone before the first request
WAITING = "nv_inference_pending_request_count"


class Measuring:
    """Readings from its start on; what came before, such as probes, is no pressure."""

    def __init__(self, engine: Engine, protocol: Protocol) -> None:
        self._engine = engine
        self._protocol = protocol
        self._mirror = Mirror()
        self._window = QueueWindow()
        self.pressure()

    def publish(self) -> None:
        self._mirror.update([*self._families(), batches(self._protocol.statistics())])

    def pressure(self) -> dict[str, float]:
        """Since the last call; ensembles are left out, because nothing waits for them."""
        models = self._engine.repository.selected
        rows = [
            row for row in self._protocol.statistics() if row["name"] not in models or not models[row["name"]].steps
        ]
        return self._window.report(rows, waiting_by_model(self._families()), self._engine.rejected)

    def _families(self) -> Sequence[Metric]:
        text = "\n".join(line for line in self._engine.metrics().splitlines() if PROOF not in line)
        return list(text_string_to_metric_families(text))


def batches(rows: Sequence[Mapping[str, Any]]) -> Metric:
    """Which batch sizes there were: Triton's metrics have only their mean."""
    family = CounterMetricFamily(
        "serve_app_batches", "Executions by batch size.", labels=["model", "version", "batch_size"]
    )
    for row in rows:
        for batch in row["batch_stats"]:
            labels = [row["name"], row["version"], str(batch["batch_size"])]
            family.add_metric(labels, batch["compute_infer"]["count"])
    return family


def waiting_by_model(families: Sequence[Metric]) -> Counter[str]:
    waiting: Counter[str] = Counter()
    for family in families:
        if family.name == WAITING:
            for sample in family.samples:
                waiting[sample.labels["model"]] += int(sample.value)
    return waiting
