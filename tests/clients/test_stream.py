"""Prompts over a real gRPC stream to a fake model: what is sent, what is kept, what is measured."""

import asyncio
import json
import queue
import threading
import time
from functools import partial

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serve_app.clients.llm.answer import Answer
from serve_app.clients.llm.stream import Callbacks, PromptStream, StreamOptions
from serve_app.errors import NotFoundError, UnavailableError

SAMPLING = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "512"}


def stream_to(url, count, *, model="demo-llm", on_text=None, on_end=None, **options):
    answers = [Answer(number, f"Question {number}?") for number in range(count)]
    callbacks = Callbacks(on_text or (lambda *_: None), on_end or (lambda _: None))
    return PromptStream(StreamOptions(url, model, sampling=SAMPLING, **options), answers, callbacks)


def run(stream):
    asyncio.run(asyncio.wait_for(stream.run(), 20))
    return stream.answers


def results(answers):
    return [answer.error or answer.text for answer in answers]


def wait_for_the_end(context):
    while context.is_active():
        time.sleep(0.02)


def test_a_request_has_the_three_tensors_of_the_contract(fake):
    answers = run(stream_to(fake.url, 3, streaming=False))
    assert results(answers) == [f"Question {number}? Yes." for number in range(3)]
    assert fake.streams == 1
    message = fake.messages[0]
    assert [(one.name, one.datatype, *one.shape) for one in message.inputs] == [
        ("PROMPT", "BYTES", 1), ("STREAM", "BOOL", 1), ("SAMPLING_PARAMETERS", "BYTES", 1),
    ]  # fmt: skip
    prompt, stream, sampling = message.raw_input_contents
    assert (prompt, stream) == (b"\x0b\x00\x00\x00Question 0?", b"\x00")
    assert json.loads(sampling[4:]) == SAMPLING
    assert (message.model_name, message.id) == ("demo-llm", "0")
    assert message.parameters["triton_enable_empty_final_response"].bool_param is True


def test_the_end_of_an_answer_may_be_marked_by_an_empty_response_by_the_last_text_or_not_at_all(fake):
    for final in ("empty", "with", None):
        fake.script = lambda requests, _, final=final: (
            response for request in requests for response in fake.grow(request, " a", " b", " c", final=final)
        )
        ended = []
        answers = run(
            stream_to(fake.url, 2, concurrency=1, on_end=lambda answer, ended=ended: ended.append(answer.number))
        )
        assert results(answers) == ["Question 0? a b c", "Question 1? a b c"], final
        assert [answer.chunks for answer in answers] == [3, 3], final
        assert ended == [0, 1], final
    fake.script = lambda requests, _: (fake.answer(request, "Yes.", final=None) for request in requests)
    assert results(run(stream_to(fake.url, 2, streaming=False, concurrency=1))) == ["Yes.", "Yes."]


def test_times_are_those_of_the_words_and_not_of_the_empty_final_response(fake):
    arrived, sent = threading.Semaphore(0), []

    def script(requests, _):
        for response in fake.grow(next(requests), " a", " b", " c"):
            sent.append(time.perf_counter())
            yield response
            if response.infer_response.outputs:
                assert arrived.acquire(timeout=5)

    fake.script = script
    stream = stream_to(fake.url, 1, on_text=lambda *_: arrived.release())
    (answer,) = run(stream)
    first, second, third, final = sent
    assert answer.sent_at_s <= first <= answer.first_at_s <= second
    assert third <= answer.last_at_s <= final <= stream.ended_at_s


def test_interleaved_answers_are_assigned_to_their_requests(fake):
    def script(requests, _):
        one, other = next(requests), next(requests)
        first, second = fake.grow(one, " a", " b"), fake.grow(other, " c", " d")
        for growing in (second, first, first, second, second, first):
            yield next(growing)

    fake.script = script
    new, ended = [], []
    stream = stream_to(
        fake.url, 2, on_text=lambda answer, text: new.append((answer.number, text)),
        on_end=lambda answer: ended.append(answer.number),
    )  # fmt: skip
    assert results(run(stream)) == ["Question 0? a b", "Question 1? c d"]
    assert (new, ended) == ([(1, " c"), (0, " a"), (0, " b"), (1, " d")], [1, 0])


def second_fails(fake, requests, _):
    for request in requests:
        yield fake.failure(request, "too long") if request.id == "1" else fake.answer(request, "fine")


def fails_in_the_middle(fake, requests, _):
    request = next(requests)
    yield fake.answer(request, "half", final=False)
    yield fake.failure(request, "engine died")


def error_without_id(fake, requests, _):
    kept = list(requests)
    yield pb.ModelStreamInferResponse(error_message="out of memory")
    yield fake.answer(kept[1], "fine")


def only_errors_without_id(fake, requests, _):
    yield from (pb.ModelStreamInferResponse(error_message=f"bad {len(fake.messages)}") for _ in requests)


def unreadable(fake, requests, _):
    response = fake.answer(next(requests), "fine")
    response.infer_response.raw_output_contents[0] = b"\xff\x00\x00\x00no"
    yield response


def two_texts(fake, requests, _):
    yield fake.answer(next(requests), "one", b"tw\xc3")


def aborted(fake, requests, context):
    first, second, _ = (next(requests) for _ in range(3))  # gRPC hides the status from a client that still writes
    yield fake.answer(first, "fine")
    yield fake.answer(second, "half", final=False)
    context.abort(grpc.StatusCode.INTERNAL, "engine died")


def ended_early(fake, requests, _):
    yield fake.answer([next(requests), next(requests)][0], "half", final=False)


def test_errors_fail_the_request_that_they_belong_to(fake):
    broke, early = "the stream broke: INTERNAL: engine died", "the stream ended before the answer was complete"
    cases = [
        (second_fails, 3, 1, ["fine", "too long", "fine"]),
        (fails_in_the_middle, 1, None, ["engine died"]),
        (error_without_id, 2, None, ["out of memory", "fine"]),
        (error_without_id, 3, None, ["out of memory", "fine", "out of memory"]),
        (only_errors_without_id, 2, 1, ["bad 1", "bad 2"]),
        (unreadable, 1, None, ["TEXT can't be read: "]),
        (two_texts, 1, None, ["one\ntw\ufffd"]),
        (aborted, 3, None, ["fine", broke, broke]),
        (ended_early, 2, None, [early, early]),
    ]
    for script, count, concurrency, expected in cases:
        fake.script = partial(script, fake)
        fake.messages.clear()
        answers = run(stream_to(fake.url, count, concurrency=concurrency))
        for found, wanted in zip(results(answers), expected, strict=True):
            assert found.startswith(wanted), (script.__name__, found)
        if script in (fails_in_the_middle, aborted):
            assert "half" in [answer.text for answer in answers], "the text that arrived is kept"


def test_the_concurrency_limits_the_requests_in_flight(fake):
    for limit, most in ((1, 1), (2, 2), (None, 5)):
        came, in_flight = queue.Queue(), []

        def script(requests, _, came=came, in_flight=in_flight, most=most):
            threading.Thread(target=lambda: [came.put(request) for request in requests], daemon=True).start()
            for answered in range(5):
                taken = [came.get(timeout=5) for _ in range(min(most, 5 - answered) - len(in_flight))]
                in_flight.extend(taken)
                time.sleep(0.02)  # a request over the limit would arrive
                assert came.empty()
                yield fake.answer(in_flight.pop(0), "fine")

        fake.script = script
        assert results(run(stream_to(fake.url, 5, concurrency=limit))) == ["fine"] * 5, limit


def test_a_connection_that_drops_keeps_the_answers_that_are_complete(fake, wire):
    def script(requests, context):
        yield fake.answer(next(requests), "fine")
        wait_for_the_end(context)

    fake.script = script
    cut = lambda answer: wire.cut() if answer.number == 0 else None  # noqa: E731
    answers = run(stream_to(wire.url, 2, on_end=cut))
    assert (answers[0].error, answers[0].text) == (None, "fine")
    assert answers[1].error.startswith("the stream broke: UNAVAILABLE: ")


def test_a_timeout_or_a_cancellation_keeps_the_answers_that_are_complete(fake):
    def script(requests, context):
        yield fake.answer(next(requests), "fine")
        wait_for_the_end(context)

    fake.script = script
    answers = run(stream_to(fake.url, 3, concurrency=1, timeout_s=0.3))
    assert results(answers) == ["fine", *["no answer within the stream timeout of 0.3 s"] * 2]
    assert answers[2].to_last_s is None, "it was never sent"

    async def cancelled():
        stream = stream_to(fake.url, 2, on_end=lambda _: running.cancel())
        running = asyncio.create_task(stream.run())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(running), 10)
        return stream.answers

    assert results(asyncio.run(cancelled())) == ["fine", "interrupted"]


def test_a_server_or_model_that_is_not_there_is_reported_before_anything_is_sent(
    fake, unreachable, silent, monkeypatch
):
    monkeypatch.setattr("serve_app.clients.llm.stream.CHECK_TIMEOUT_S", 0.2)
    for url, model, kind, message in (
        (unreachable, "demo-llm", UnavailableError, f"{unreachable} is unavailable: .*Connection refused"),
        (silent, "demo-llm", UnavailableError, rf"{silent} did not answer within 0\.2 s$"),
        (fake.url, "nope", NotFoundError, "unknown model: 'nope'$"),
    ):
        stream = stream_to(url, 2, model=model)
        with pytest.raises(kind, match=f"^{message}"):
            run(stream)
        assert stream.started_at_s is None
    assert fake.messages == []
