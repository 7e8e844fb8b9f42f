"""The record of an inference in flight: it ends once, however a stop, an answer and a cancellation meet."""

from __future__ import annotations

import pytest

import serve_app.triton.embedded as triton
from serve_app.triton.embedded import inference
from serve_app.triton.embedded.iterators import ResponseIterator
from serve_app.triton.embedded.memory import DEFAULT_PLACEMENT


def held_inference() -> tuple[inference.InferenceGroup, inference.Inference, ResponseIterator]:
    group, iterator = inference.InferenceGroup(), ResponseIterator(None, raise_on_error=True)
    held = inference.Inference(group, 0, "r1", [], DEFAULT_PLACEMENT, iterator._deliver, lambda name, version: None)
    group.members[held.number] = held
    return group, held, iterator


STOPPED = triton.UnavailableError("Server stopped before the request was answered")


def test_a_request_that_will_never_be_answered_ends_with_an_error() -> None:
    group, _, iterator = held_inference()
    group.end(STOPPED)
    with pytest.raises(triton.UnavailableError, match="Server stopped before the request was answered"):
        next(iterator)
    assert list(iterator) == []


def test_a_stop_and_an_answer_at_once_give_one_final_response() -> None:
    """In every order: whichever comes second finds the inference answered or forgotten, and harms nothing."""
    for first_is_answer in (True, False):
        group, held, iterator = held_inference()
        answer = triton.InferenceResponse(None, "r1", final=True)
        steps = [lambda: held.answer(answer), lambda: group.end(STOPPED)]  # noqa: B023 - called in this turn
        for step in steps if first_is_answer else reversed(steps):
            step()
        assert iterator._queue.get_nowait().error is (None if first_is_answer else STOPPED)
        assert iterator._queue.empty()
    group, held, iterator = held_inference()
    others = [held, held_inference()[1]]
    group.members[others[1].number] = others[1]
    held.forget()
    group.members[held.number] = held  # as a stop sees it that has listed its inferences before
    group.end(STOPPED)
    assert held.read(1, True) is None
    assert [one.final for one in others] == [True, True]


def test_a_released_request_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    _, held, _ = held_inference()
    monkeypatch.setattr(inference, "api", lambda: pytest.fail("the request was used after its release"))
    held.released = True
    held.cancel()
