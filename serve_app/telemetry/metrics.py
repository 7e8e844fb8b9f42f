"""The router's own metrics; Ray exports them with the prefix `ray_`, and counters with the suffix `_total`."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from ray.serve.metrics import Counter, Histogram

from serve_app.telemetry.observation import CANCELLED, Observation, observing

REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
STAGE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class RequestMetrics:
    """Create it inside a replica: there Serve adds the labels `deployment`, `replica` and `application`."""

    def __init__(self) -> None:
        self._requests = Counter(
            "serve_app_requests",
            "Answered requests; status 499: the client disconnected first.",
            ("protocol", "track", "model", "status"),
        )
        self._seconds = Histogram(
            "serve_app_request_seconds",
            "Time from the arrival of a request to the end of its answer.",
            list(REQUEST_SECONDS),
            ("protocol", "track", "model"),
        )
        self._stages = Histogram(
            "serve_app_stage_seconds",
            "Time of an image in decode, preprocess, queue, infer and postprocess.",
            list(STAGE_SECONDS),
            ("track", "model", "stage"),
        )
        self._received = Counter("serve_app_received_bytes", "Size of request bodies.", ("protocol",))
        self._sent = Counter("serve_app_sent_bytes", "Size of response bodies.", ("protocol",))
        self._rejected = Counter("serve_app_rejected", "Refused requests, by reason.", ("protocol", "model", "reason"))
        self._cancelled = Counter(
            "serve_app_cancelled", "Requests whose client disconnected before the end.", ("protocol", "model")
        )
        self._of_keys = Counter("serve_app_key_requests", "Requests of each API key, by its name.", ("key", "status"))
        self._tokens = Counter(
            "serve_app_tokens", "Tokens of language models, prompts and answers, by the key's name.", ("model", "key")
        )
        self._retries = Counter("serve_app_retries", "Requests retried because a replica died.", ("upstream",))

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
            self._count(observation, time.perf_counter() - began)

    def _count(self, seen: Observation, seconds: float) -> None:
        protocol, model = {"protocol": seen.protocol}, {"model": seen.model}
        self._requests.inc(1, {**protocol, "track": seen.track, **model, "status": str(seen.status)})
        self._seconds.observe(seconds, {**protocol, "track": seen.track, **model})
        if seen.received_bytes:
            self._received.inc(seen.received_bytes, {**protocol})
        if seen.sent_bytes:
            self._sent.inc(seen.sent_bytes, {**protocol})
        if seen.refused:
            self._rejected.inc(1, {**protocol, **model, "reason": seen.refused})
        if seen.status == CANCELLED:
            self._cancelled.inc(1, {**protocol, **model})
        key = seen.caller.name if seen.caller else ""
        if key:
            self._of_keys.inc(1, {"key": key, "status": str(seen.status)})
        if seen.tokens:
            self._tokens.inc(seen.tokens, {**model, "key": key})
        if seen.retried:
            self._retries.inc(1, {"upstream": seen.retried})
        for times in seen.times:
            for stage, ms in asdict(times).items():
                self._stages.observe(ms / 1e3, {"track": seen.track, **model, "stage": stage})
