"""The load that is made: its bytes, its answers, its clocks, and what it says of errors."""

import asyncio
import contextlib
import threading
import time

import pytest

from serve_app.tools.bench.connection import Connection, post
from serve_app.tools.bench.load import Generator, Plan


class Server:
    """A real one on loopback, which answers what the script says."""

    def __init__(self):
        self.heard, self.answer, self.pause_s = [], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0.0
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.heard.append((head.split(b"\r\n")[0], await reader.readexactly(length)))
                await asyncio.sleep(self.pause_s)
                if self.answer is None:
                    writer.close()
                    return
                for piece in [self.answer[:20], self.answer[20:]]:  # in two pieces, as a network may
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._end_connections(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _end_connections(self):
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@pytest.fixture
def server():
    one = Server()
    yield one
    one.stop()


def plan(server, **changes):
    fields = {"clients": 2, "duration_s": 0.4, "warmup_s": 0.1, "timeout_s": 5.0} | changes
    return Plan(server.url, [post(server.url, "/predict/nano", b"one"), post(server.url, "/x", b"other")], **fields)


async def test_a_connection_is_kept_and_answers_are_read_whole(server):
    server.answer = b"HTTP/1.1 422 Unprocessable\r\nX: y\r\ncontent-length: 5\r\n\r\nworse"
    connection = await Connection.open(server.url)
    for _ in range(3):
        answer = await connection.ask(post(server.url, "/a", b"body", key="v"), 5)
        assert (answer.status, answer.body) == (422, b"worse")
    connection.close()
    assert server.connections == 1
    assert server.heard == [(b"POST /a HTTP/1.1", b"body")] * 3


async def test_the_length_of_a_body_is_not_that_of_its_inference_header(server):
    server.answer = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 2\r\nContent-Length: 6\r\n\r\n{}\r\n\r\n"
    answer = await (await Connection.open(server.url)).ask(post(server.url, "/a", b""), 5)
    assert answer.body == b"{}\r\n\r\n"


async def test_a_stream_is_read_to_its_last_chunk_and_its_first_byte_is_timed(server):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answer, server.pause_s = head + b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n", 0.05
    connection = await Connection.open(server.url)
    for _ in range(2):
        began = time.perf_counter()
        answer = await connection.ask(post(server.url, "/a", b""), 5)
        assert answer.status == 200
        assert answer.body == server.answer[len(head) :]
        assert began + 0.05 <= answer.first_s <= time.perf_counter()


@pytest.mark.parametrize(
    ("answer", "kind"), [(None, ConnectionError), (b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", ConnectionError)]
)
async def test_what_is_no_whole_answer_is_an_error(server, answer, kind):
    server.answer = answer
    connection = await Connection.open(server.url)
    with pytest.raises(kind):
        await connection.ask(post(server.url, "/a", b""), 5)


def test_a_closed_loop_asks_again_when_it_is_answered_and_takes_the_requests_in_turn(server):
    server.pause_s = 0.02
    outcome = Generator(plan(server, clients=3)).run()
    assert server.connections == 3
    assert {body for _, body in server.heard} == {b"one", b"other"}
    assert not outcome.errors
    assert 0 < len(outcome.took_ms) < len(server.heard), "what came in the warm-up isn't counted"
    assert min(outcome.took_ms) >= 20
    assert len(outcome.first_ms) == len(outcome.took_ms)
    assert all(20 <= first <= took for first, took in zip(outcome.first_ms, outcome.took_ms, strict=True))
    assert outcome.wall_s >= 0.4
    assert 0 < outcome.generator_share < 1


def test_an_open_loop_keeps_its_rate_however_slow_the_answers_are(server):
    server.pause_s = 0.3
    outcome = Generator(plan(server, rate_per_s=100.0, duration_s=1.0)).run()
    assert 50 < len(outcome.took_ms) < 160
    assert min(outcome.took_ms) >= 300
    assert len(outcome.late_ms) == len(server.heard)


def test_a_time_counts_from_when_the_request_was_due(server):
    outcome = Generator(plan(server, rate_per_s=200.0)).run()
    began = time.perf_counter()
    assert all(ms > 0 for ms in outcome.took_ms)
    assert time.perf_counter() - began < 1


def test_errors_are_told_by_their_kind_and_are_no_answers(server):
    server.answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    outcome = Generator(plan(server)).run()
    assert set(outcome.errors) == {"503"}
    assert outcome.took_ms == []
    server.answer = None
    assert set(Generator(plan(server)).run().errors) == {"ConnectionError"}
    server.answer, server.pause_s = b"", 1.0
    assert set(Generator(plan(server, timeout_s=0.1)).run().errors) == {"TimeoutError"}


def test_a_service_that_is_not_there_is_an_error_of_each_request():
    nowhere = Plan("http://127.0.0.1:9", [b""], 1, 0.2, 0.0)
    assert set(Generator(nowhere).run().errors) == {"ConnectionRefusedError"}


def test_an_answer_that_is_wrong_is_an_error(server):
    checked = Generator(plan(server), lambda answer: "" if answer.body == b"right" else "wrong answer")
    assert set(checked.run().errors) == {"wrong answer"}
