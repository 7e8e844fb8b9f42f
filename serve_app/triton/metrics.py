"""A Triton replica's metrics for Ray, and the pressure on its queues for Serve's autoscaling."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from serve_app.telemetry.pressure import QueueWindow
from serve_app.telemetry.prometheus import MetricsForwarder
from serve_app.triton.engine import Engine
from serve_app.triton.protocol import Protocol

PROOF = "python_backend_proof"  # the embedded engine's own model, unloaded before the first request
WAITING = re.compile(r'^nv_inference_pending_request_count\{.*?\bmodel="([^"]*)".*\} (\d+)', re.MULTILINE)


class TritonMetrics:
    """Counts from its creation on, so that probes at the start are no pressure."""

    def __init__(self, engine: Engine, protocol: Protocol) -> None:
        self._engine = engine
        self._protocol = protocol
        self._mirror = MetricsForwarder()
        self._window = QueueWindow()
        self.pressure()

    def publish(self) -> None:
        self._mirror.update([*self._families(), batches(self._protocol.statistics())])

    def pressure(self) -> dict[str, float]:
        """Since the last call. Ensembles have no queue of their own, so they are left out."""
        models = self._engine.repository.selected
        rows = [
            row for row in self._protocol.statistics() if row["name"] not in models or not models[row["name"]].steps
        ]
        return self._window.report(rows, waiting_by_model(self._engine.metrics()), self._engine.rejected)

    def _families(self) -> Sequence[Metric]:
        text = "\n".join(line for line in self._engine.metrics().splitlines() if PROOF not in line)
        return list(text_string_to_metric_families(text))


def batches(rows: Sequence[Mapping[str, Any]]) -> Metric:
    """Executions by batch size; Triton's own metrics have only the mean."""
    family = CounterMetricFamily(
        "serve_app_batches", "Executions by batch size.", labels=["model", "version", "batch_size"]
    )
    for row in rows:
        for batch in row["batch_stats"]:
            labels = [row["name"], row["version"], str(batch["batch_size"])]
            family.add_metric(labels, batch["compute_infer"]["count"])
    return family


def waiting_by_model(text: str) -> Counter[str]:
    """From Triton's text: parsing all of it takes ten milliseconds, and Serve asks several times a second."""
    waiting: Counter[str] = Counter()
    for model, count in WAITING.findall(text):
        waiting[model] += int(count)
    return waiting
