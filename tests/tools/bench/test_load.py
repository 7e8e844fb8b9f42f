"""The load generator: its requests, its answers, its clocks and its errors."""

import asyncio
import contextlib
import threading
import time

import pytest

from serve_app.tools.bench.connection import Connection, build_post
from serve_app.tools.bench.load import Load, LoadGenerator, Reply, run_http_load

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """A real server on loopback that sends a fixed answer; None closes the connection."""

    def __init__(self):
        self.received, self.answer, self.delay_s, self.connections = [], OK, 0.0, 0
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
                self.received.append((head.split(b"\r\n")[0], await reader.readexactly(length)))
                await asyncio.sleep(self.delay_s)
                if self.answer is None:
                    writer.close()
                    return
                for piece in (self.answer[:20], self.answer[20:]):  # as a network may split it
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._cancel_connections(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _cancel_connections(self):
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@pytest.fixture
def server():
    one = Server()
    yield one
    one.stop()


def run(server, check=None, timeout_s=5.0, **load):
    requests = [build_post(server.url, "/predict/nano", b"one"), build_post(server.url, "/x", b"other")]
    fields = {"clients": 2, "duration_s": 0.3, "warmup_s": 0.05} | load
    return run_http_load(server.url, requests, Load(**fields), check, timeout_s)


async def test_a_connection_is_kept_and_responses_are_read_whole(server):
    chunks = b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"
    connection = await Connection.open(server.url)
    for head, status, body in (
        (b"HTTP/1.1 422 Unprocessable\r\nX: y\r\ncontent-length: 5", 422, b"worse"),
        (b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 2\r\nContent-Length: 6", 200, b"{}\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", 200, chunks),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", 200, chunks),
    ):
        server.answer = head + b"\r\n\r\n" + body
        sent = time.perf_counter()
        response = await connection.send(build_post(server.url, "/a", b"body", key="v"), 5)
        assert (response.status, response.body) == (status, body)
        assert sent < response.first_byte_s <= time.perf_counter()
    connection.close()
    assert server.connections == 1
    assert server.received == [(b"POST /a HTTP/1.1", b"body")] * 4


async def test_an_incomplete_response_is_an_error(server):
    for answer in (None, b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"):
        server.answer = answer
        connection = await Connection.open(server.url)
        with pytest.raises(ConnectionError):
            await connection.send(build_post(server.url, "/a", b""), 5)


def test_a_closed_loop_sends_again_when_it_is_answered_and_sends_all_requests_in_turn(server):
    server.delay_s = 0.02
    result = run(server, clients=3)
    assert server.connections == 3
    assert {body for _, body in server.received} == {b"one", b"other"}
    assert result.problems == []
    assert 0 < len(result.latencies_ms) < len(server.received), "the warm-up is not counted"
    assert min(result.latencies_ms) >= 20
    assert all(20 <= one <= whole for one, whole in zip(result.first_byte_ms, result.latencies_ms, strict=True))
    assert result.wall_s >= 0.3
    assert result.throughput == len(result.latencies_ms) / result.wall_s
    assert 0 < result.generator_share < 1


def test_a_closed_loop_waits_for_one_answer_per_client_and_counts_that_time():
    async def send(_):
        await asyncio.sleep(0.3)
        return Reply()

    result = asyncio.run(LoadGenerator(Load(2, 0.05, 0.0), send).run())
    assert len(result.latencies_ms) == 2
    assert result.wall_s > 0.29


def test_an_open_loop_keeps_its_rate_and_counts_from_when_a_request_was_due(server):
    server.delay_s = 0.3
    result = run(server, rate_per_s=100.0, duration_s=0.5)
    assert len(result.late_ms) == len(server.received)
    assert 20 < len(result.latencies_ms) < 100, "two clients in a closed loop would get 4 answers"
    assert min(result.latencies_ms) >= 300


def test_errors_are_counted_by_kind_and_are_no_answers(server):
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    for answer, delay_s, check, error in (
        (busy, 0, None, "503"),
        (None, 0, None, "ConnectionError"),
        (b"", 0.5, None, "TimeoutError"),
        (OK, 0, lambda response: "" if response.body == b"right" else "wrong answer", "wrong answer"),
    ):
        server.answer, server.delay_s = answer, delay_s
        result = run(server, check, timeout_s=0.1)
        assert (set(result.errors), result.latencies_ms) == ({error}, [])
        assert result.problems == [f"{result.errors[error]} × {error}"]
    refused = run_http_load("http://127.0.0.1:9", [b""], Load(1, 0.1, 0.0))
    assert set(refused.errors) == {"ConnectionRefusedError"}
