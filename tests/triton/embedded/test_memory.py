"""Memory, handles and threads come back."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import serve_app.triton.embedded as triton
from tests.triton.embedded.soak import soak, wait_until_all_have_ended


def test_thousands_of_requests_leave_memory_handles_and_threads_as_they_were(server: triton.Server) -> None:
    usages = list(soak(server, requests=6_000, rounds=3))
    assert usages[-1].handles == usages[0].handles
    assert usages[-1].threads == usages[0].threads
    assert usages[-1].rss_kib - usages[1].rss_kib < 8_000, usages


def test_an_output_is_freed_when_the_last_view_of_it_is_gone(server: triton.Server) -> None:
    def resident_kib() -> int:  # without shared memory, which the backend keeps
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])

    model = server.load("identity")
    big = np.ones(16 << 20, np.float32)
    gc.disable()  # reference counting alone must do
    try:
        next(model.infer(inputs={"IN0": big}))
        before = resident_kib()

        def hold_four() -> int:
            views = [np.from_dlpack(next(model.infer(inputs={"IN0": big})).outputs["OUT0"]) for _ in range(4)]
            return resident_kib() if views else 0

        # What is freed stays with the process where a library has told malloc so: then it is used again.
        peak = hold_four()
        assert peak - before > 120_000
        assert hold_four() - peak < 10_000
    finally:
        gc.enable()


def test_requests_that_fail_leave_nothing(server: triton.Server) -> None:
    wait_until_all_have_ended()  # Triton may return a request of the last test after its response
    model = server.load("identity")
    for _ in range(50):
        with pytest.raises(triton.InvalidArgumentError):
            model.infer(inputs={"IN0": np.zeros(1, np.int8)})
        with pytest.raises(triton.InvalidArgumentError):
            model.infer(inputs={"IN0": np.zeros(1, np.float32)}, parameters={"bad": object()})
    wait_until_all_have_ended()
