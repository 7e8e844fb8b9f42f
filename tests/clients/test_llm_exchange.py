"""The exchange with a fake model over a real gRPC stream: what is sent, what is kept, what is measured."""

import asyncio
import json
import queue
import threading
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serve_app.clients.llm.answers import Answer
from serve_app.clients.llm.exchange import Exchange, Plan
from serve_app.clients.llm.messages import Question
from serve_app.errors import NotFoundError, UnavailableError

SAMPLING = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "512"}


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.new, self.ended = [], []

    def on_text(self, answer, new):
        self.new.append((answer.number, new))

    def on_end(self, answer):
        self.ended.append(answer.number)


def exchange_of(url, count, *, streaming=True, model="demo-llm", heard=None, **options):
    answers = [Answer(number, f"Question {number}?") for number in range(count)]
    return Exchange(Plan(url, Question(model, streaming, SAMPLING), **options), answers, heard or Heard())


def run(exchange):
    asyncio.run(asyncio.wait_for(exchange.run(), 20))
    return exchange.answers


def seen_of(answers):
    return [answer.error or answer.text for answer in answers]


def test_the_fake_model_gets_the_three_tensors_of_the_contract(fake):
    run(exchange_of(fake.url, 1, streaming=False))
    (message,) = fake.messages
    assert [given.name for given in message.inputs] == ["PROMPT", "STREAM", "SAMPLING_PARAMETERS"]
    assert [(given.datatype, *given.shape) for given in message.inputs] == [("BYTES", 1), ("BOOL", 1), ("BYTES", 1)]
    prompt, stream, sampling = message.raw_input_contents
    assert (prompt, stream) == (b"\x0b\x00\x00\x00Question 0?", b"\x00")
    assert json.loads(sampling[4:]) == SAMPLING
    assert (message.model_name, message.id) == ("demo-llm", "0")
    assert message.parameters["triton_enable_empty_final_response"].bool_param is True


def test_whole_answers_of_the_fake_model_come_over_one_stream(fake):
    answers = run(exchange_of(fake.url, 3, streaming=False))
    assert seen_of(answers) == [f"Question {number}? Yes." for number in range(3)]
    assert all(answer.ended for answer in answers)
    assert fake.streams == 1


@pytest.mark.parametrize("final", ["empty", "with", None])
def test_the_fake_model_may_mark_the_end_emptily_with_the_last_text_or_not_at_all(fake, final):
    def script(requests, _):
        for request in requests:
            yield from fake.grow(request, " a", " b", " c", final=final)

    fake.script = script
    heard = Heard()
    answers = run(exchange_of(fake.url, 2, concurrency=1, heard=heard))
    assert seen_of(answers) == ["Question 0? a b c", "Question 1? a b c"]
    assert [answer.chunks for answer in answers] == [3, 3]
    assert heard.ended == [0, 1]


def test_a_whole_answer_of_a_fake_model_that_marks_no_end_is_an_answer(fake):
    def script(requests, _):
        for request in requests:
            yield fake.answer(request, "Yes.", final=None)

    fake.script = script
    assert seen_of(run(exchange_of(fake.url, 2, streaming=False, concurrency=1))) == ["Yes.", "Yes."]


def test_times_are_those_of_the_fake_models_words_and_not_of_its_empty_final(fake):
    def script(requests, _):
        for request in requests:
            time.sleep(0.2)
            for response in fake.grow(request, " a", " b", " c", pause_s=0.1):
                time.sleep(0 if response.infer_response.outputs else 0.3)
                yield response

    fake.script = script
    exchange = exchange_of(fake.url, 1)
    (answer,) = run(exchange)
    assert 0.2 <= answer.to_first_s < 0.35
    assert 0.4 <= answer.to_last_s < 0.6
    assert exchange.wall_s >= 0.7


def test_interleaved_answers_of_the_fake_model_find_their_requests(fake):
    def script(requests, _):
        one, other = next(requests), next(requests)
        first, second = fake.grow(one, " a", " b"), fake.grow(other, " c", " d")
        for growing in (second, first, first, second, second, first):
            yield next(growing)

    fake.script = script
    heard = Heard()
    answers = run(exchange_of(fake.url, 2, heard=heard))
    assert seen_of(answers) == ["Question 0? a b", "Question 1? c d"]
    assert heard.new == [(1, " c"), (0, " a"), (0, " b"), (1, " d")]
    assert heard.ended == [1, 0]


def test_several_texts_and_half_characters_of_the_fake_model_are_kept(fake):
    fake.script = lambda requests, _: (fake.answer(request, "one", b"tw\xc3") for request in requests)
    assert seen_of(run(exchange_of(fake.url, 1, streaming=False))) == ["one\ntw\ufffd"]


def test_one_failed_request_of_the_fake_model_fails_alone(fake):
    def script(requests, _):
        for request in requests:
            failed = request.id == "1"
            yield fake.failure(request, "too long") if failed else fake.answer(request, f"answer {request.id}")

    fake.script = script
    answers = run(exchange_of(fake.url, 3, concurrency=1))
    assert seen_of(answers) == ["answer 0", "too long", "answer 2"]
    assert [answer.error for answer in answers] == [None, "too long", None]


def test_an_error_of_the_fake_model_in_the_middle_keeps_what_had_come(fake):
    def script(requests, _):
        for request in requests:
            yield fake.answer(request, "Question 0? half", final=False)
            yield fake.failure(request, "engine died")

    fake.script = script
    (answer,) = run(exchange_of(fake.url, 1))
    assert (answer.error, answer.text) == ("engine died", "Question 0? half")


def test_an_error_of_the_fake_model_without_an_id_is_given_to_whom_it_can_be(fake):
    def script(requests, _):
        kept = list(requests)
        yield pb.ModelStreamInferResponse(error_message="out of memory")
        yield fake.answer(kept[1], "fine")

    fake.script = script
    assert seen_of(run(exchange_of(fake.url, 2))) == ["out of memory", "fine"]
    assert seen_of(run(exchange_of(fake.url, 3))) == ["out of memory", "fine", "out of memory"]


def test_an_error_of_the_fake_model_without_an_id_frees_its_place(fake):
    def script(requests, _):
        for _request in requests:
            yield pb.ModelStreamInferResponse(error_message=f"bad {len(fake.messages)}")

    fake.script = script
    assert seen_of(run(exchange_of(fake.url, 2, concurrency=1))) == ["bad 1", "bad 2"]


def test_text_of_the_fake_model_that_cannot_be_read_is_that_requests_error(fake):
    def script(requests, _):
        for request in requests:
            response = fake.answer(request, "fine")
            if request.id == "0":
                response.infer_response.raw_output_contents[0] = b"\xff\x00\x00\x00no"
            yield response

    fake.script = script
    broken, fine = run(exchange_of(fake.url, 2))
    assert broken.error.startswith("TEXT can't be read: ")
    assert seen_of([fine]) == ["fine"]


@pytest.mark.parametrize("limit", [1, 2])
def test_no_more_than_the_concurrency_waits_at_the_fake_model(fake, limit):
    peaks = []

    def script(requests, _):
        came = queue.Queue()
        threading.Thread(target=lambda: [came.put(request) for request in requests], daemon=True).start()
        for _ in range(5):
            time.sleep(0.1)  # for more to come, if more is sent
            peaks.append(came.qsize())
            yield fake.answer(came.get(timeout=5), "fine")

    fake.script = script
    assert seen_of(run(exchange_of(fake.url, 5, concurrency=limit))) == ["fine"] * 5
    assert max(peaks) == limit


def test_all_are_sent_at_once_to_the_fake_model_without_a_limit(fake):
    fake.script = lambda requests, _: iter([fake.answer(request, "fine") for request in list(requests)])
    assert seen_of(run(exchange_of(fake.url, 40))) == ["fine"] * 40


def test_a_stream_that_the_fake_model_breaks_keeps_what_was_finished(fake):
    def script(requests, context):
        first, second, _ = (next(requests) for _ in range(3))  # a client that still writes would lose the status
        yield fake.answer(first, "fine")
        yield fake.answer(second, "half", final=False)
        context.abort(grpc.StatusCode.INTERNAL, "engine died")

    fake.script = script
    answers = run(exchange_of(fake.url, 3))
    assert [answer.error for answer in answers] == [None, *["the stream broke: INTERNAL: engine died"] * 2]
    assert [answer.text for answer in answers] == ["fine", "half", ""]


def test_a_stream_that_the_fake_model_ends_early_is_no_answer(fake):
    def script(requests, _):
        first, _ = (next(requests) for _ in range(2))
        yield fake.answer(first, "half", final=False)

    fake.script = script
    assert seen_of(run(exchange_of(fake.url, 2))) == ["the stream ended before the answer did"] * 2


def test_a_connection_to_the_fake_model_that_drops_keeps_what_was_finished(fake, wire):
    class CutsThen(Heard):
        def on_end(self, answer):
            super().on_end(answer)
            if answer.number == 0:
                wire.cut()

    def script(requests, context):
        yield fake.answer(next(requests), "fine")
        while context.is_active():
            time.sleep(0.05)

    fake.script = script
    answers = run(exchange_of(wire.url, 2, heard=CutsThen()))
    assert answers[0].error is None
    assert answers[0].text == "fine"
    assert answers[1].error.startswith("the stream broke: UNAVAILABLE: ")


def test_a_fake_model_that_never_answers_is_left_at_the_streams_timeout(fake):
    def script(requests, context):
        yield fake.answer(next(requests), "fine")
        while context.is_active():
            time.sleep(0.05)

    fake.script = script
    exchange = exchange_of(fake.url, 3, concurrency=1, stream_timeout_s=0.5)
    answers = run(exchange)
    assert seen_of(answers) == ["fine", *["no answer within the stream's timeout of 0.5 s"] * 2]
    assert 0.5 <= exchange.wall_s < 2
    assert answers[2].to_last_s is None, "it was never sent"


async def test_cutting_the_exchange_short_keeps_what_was_finished(fake):
    class Cutting(Heard):
        def on_end(self, answer):
            super().on_end(answer)
            running.cancel()

    def script(requests, context):
        yield fake.answer(next(requests), "fine")
        while context.is_active():
            time.sleep(0.05)

    fake.script = script
    exchange = exchange_of(fake.url, 2, heard=Cutting())
    running = asyncio.create_task(exchange.run())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(running), 10)
    assert seen_of(exchange.answers) == ["fine", "interrupted"]


def test_a_server_that_is_not_there_is_told_before_anything_is_sent(unreachable):
    exchange = exchange_of(unreachable, 2)
    with pytest.raises(UnavailableError, match=rf"^{unreachable} is unavailable: .*Connection refused"):
        run(exchange)
    assert exchange.started_at_s is None


def test_a_server_that_says_nothing_is_left_after_a_while(silent, monkeypatch):
    monkeypatch.setattr("serve_app.clients.llm.exchange.CHECK_TIMEOUT_S", 0.3)
    with pytest.raises(UnavailableError, match=rf"^{silent} doesn't answer within 0\.3 s$"):
        run(exchange_of(silent, 1))


def test_a_model_that_the_fake_server_does_not_know_is_told_before_anything_is_sent(fake):
    with pytest.raises(NotFoundError, match=r"^unknown model: 'nope'$"):
        run(exchange_of(fake.url, 2, model="nope"))
    assert fake.messages == []
