"""The router's own metrics; Ray exports them with the prefix `ray_`, and counters with the suffix `_total`."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ray.serve.metrics import Counter, Histogram

from serve_app.telemetry.observation import CANCELLED, Observation, observing

REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
REQUEST = ("protocol", "track", "model")
RECORD_AFTER_S = 0.2
STAGE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

Totals = defaultdict[tuple[Counter, tuple[str, ...]], int]  # by a counter and the values of its labels


class RequestMetrics:
    """Create it inside a replica: there Serve adds the labels `deployment`, `replica` and `application`.

    Requests that have ended are recorded some at a time: each number takes Ray several microseconds, and requests share
    most counters.
    """

    def __init__(self) -> None:
        self._ended: list[tuple[Observation, float]] = []
        self._labels: dict[Counter, tuple[str, ...]] = {}
        self._requests = self._counter(
            "serve_app_requests", "Answered requests; status 499: the client disconnected first.", *REQUEST, "status"
        )
        self._seconds = Histogram(
            "serve_app_request_seconds",
            "Time from the arrival of a request to the end of its answer.",
            list(REQUEST_SECONDS),
            REQUEST,
        )
        self._stages = Histogram(
            "serve_app_stage_seconds",
            "Time of an image in decode, preprocess, queue, infer and postprocess.",
            list(STAGE_SECONDS),
            ("track", "model", "stage"),
        )
        self._received = self._counter("serve_app_received_bytes", "Size of request bodies.", "protocol")
        self._sent = self._counter("serve_app_sent_bytes", "Size of response bodies.", "protocol")
        self._rejected = self._counter(
            "serve_app_rejected", "Refused requests, by reason.", "protocol", "model", "reason"
        )
        self._cancelled = self._counter(
            "serve_app_cancelled", "Requests whose client disconnected before the end.", "protocol", "model"
        )
        self._of_keys = self._counter(
            "serve_app_key_requests", "Requests of each API key, by its name.", "key", "status"
        )
        self._tokens = self._counter(
            "serve_app_tokens", "Tokens of language models, prompts and answers, by the key's name.", "model", "key"
        )
        self._retries = self._counter("serve_app_retries", "Requests retried because a replica died.", "upstream")

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        counter = Counter(name, about, labels)
        self._labels[counter] = labels
        return counter

    @contextmanager
    def observe(self, protocol: str) -> Iterator[Observation]:
        """Observe one request and count it when it ends."""
        observation = Observation(protocol)
        began = time.perf_counter()
        try:
            with observing(observation):
                yield observation
        except (asyncio.CancelledError, GeneratorExit):
            observation.status = CANCELLED
            raise
        finally:
            self._end(observation, time.perf_counter() - began)

    def _end(self, observation: Observation, seconds: float) -> None:
        self._ended.append((observation, seconds))
        if len(self._ended) == 1:
            try:
                asyncio.get_running_loop().call_later(RECORD_AFTER_S, self.record)
            except RuntimeError:  # outside of a loop
                self.record()

    def record(self) -> None:
        """Give Ray what has ended since the last time."""
        ended, self._ended = self._ended, []
        totals: Totals = defaultdict(int)
        for seen, seconds in ended:
            self._count(seen, seconds, totals)
        for (counter, values), total in totals.items():
            counter.inc(total, dict(zip(self._labels[counter], values, strict=True)))

    def _count(self, seen: Observation, seconds: float, totals: Totals) -> None:
        protocol, model, status = seen.protocol, seen.model, str(seen.status)
        totals[self._requests, (protocol, seen.track, model, status)] += 1
        self._seconds.observe(seconds, {"protocol": protocol, "track": seen.track, "model": model})
        if seen.received_bytes:
            totals[self._received, (protocol,)] += seen.received_bytes
        if seen.sent_bytes:
            totals[self._sent, (protocol,)] += seen.sent_bytes
        if seen.refused:
            totals[self._rejected, (protocol, model, seen.refused)] += 1
        if seen.status == CANCELLED:
            totals[self._cancelled, (protocol, model)] += 1
        key = seen.caller.name if seen.caller else ""
        if key:
            totals[self._of_keys, (key, status)] += 1
        if seen.tokens:
            totals[self._tokens, (model, key)] += seen.tokens
        if seen.retried:
            totals[self._retries, (seen.retried,)] += 1
        for times in seen.times:
            for stage, ms in times.by_stage().items():
                self._stages.observe(ms / 1e3, {"track": seen.track, "model": model, "stage": stage})
