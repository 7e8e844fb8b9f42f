"""Slow and idle clients by the hundred: they are cut or refused, and meanwhile health and others are answered."""

import asyncio
import socket
import sys
import time

import grpc
import httpx
import pytest
import tritonclient.grpc.aio as triton

from tests.e2e.service import SHAPES

PATIENCE_S = 0.5  # of a health check, and of a picture beside it
IDLE_STREAMS, SLOW_BODIES = 600, 1200
SLOW = b"POST /predict/nano HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


def cut_after(service, opening, piece, pause_s=0.5, patience_s=30):
    """What a slow client gets, and after how many seconds."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=pause_s) as client:
        began = time.monotonic()
        client.sendall(opening)
        answer = b""
        while time.monotonic() - began < patience_s:
            try:
                piece_of_answer = client.recv(4096)
            except TimeoutError:
                try:
                    client.sendall(piece)
                except OSError:
                    break
                continue
            except OSError:
                break
            if not piece_of_answer:
                break
            answer += piece_of_answer
        return answer, time.monotonic() - began


def test_headers_that_trickle_are_cut(service):
    answer, took_s = cut_after(service, b"GET /health HTTP/1.1\r\nHost: a\r\n", b"X-A: b\r\n")
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert took_s < 15


def test_a_connection_that_says_nothing_is_closed(service):
    _, took_s = cut_after(service, b"", b"", patience_s=30)
    assert took_s < 15


def test_a_body_that_trickles_is_refused(service):
    answer, took_s = cut_after(service, SLOW, b"x")
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"the body arrives too slowly" in answer
    assert took_s < 15


CHECK = """
import sys, time, httpx
with httpx.Client(timeout=30) as client:
    for url in sys.argv[1:] * 5:
        began = time.monotonic()
        print(client.get(f"{url}/v2/health/live").status_code, time.monotonic() - began)
"""


async def require_health(service):
    """Through HAProxy and of each router, from a process of its own: this one is busy with being many clients."""
    command = [sys.executable, "-c", CHECK, service.url, *service.router_urls()]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    checks = [line.split() for line in output.decode().splitlines()]
    assert len(checks) == 5 * len(command[3:])
    assert {status for status, _ in checks} == {"200"}
    assert max(float(seconds) for _, seconds in checks) < PATIENCE_S


async def require_others_are_answered(service):
    """Health, and a picture."""
    await require_health(service)
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{service.url}/predict/nano", content=SHAPES.read_bytes())
        assert len(answer.json()["detections"]) == 6


async def test_idle_streams_leave_health_and_others_alone(service):
    ended = asyncio.Event()
    refused = []

    async def nothing():
        await ended.wait()
        return
        yield

    async def open_stream(client):
        try:
            async for _, problem in client.stream_infer(nothing()):
                assert problem is None
        except grpc.RpcError as problem:
            refused.append(str(problem))

    own = [("grpc.use_local_subchannel_pool", 1)]  # else all clients share a connection, and its hundred streams
    clients = [triton.InferenceServerClient(service.grpc_host, channel_args=own) for _ in range(8)]
    streams = [asyncio.create_task(open_stream(clients[number % 8])) for number in range(IDLE_STREAMS)]
    try:
        await asyncio.sleep(5)
        await require_others_are_answered(service)
        assert await clients[0].is_server_live()
        assert len(refused) >= IDLE_STREAMS - 2 * 128
        assert [
            reason for reason in refused if "at its limit of 128 open streams (router.at_once.streams)" not in reason
        ] == []
    finally:
        ended.set()
        await asyncio.gather(*streams)
        for client in clients:
            await client.close()
    await require_others_are_answered(service)


@pytest.mark.timeout(300)
async def test_slow_bodies_leave_health_and_others_alone(service):
    async def trickle():
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(SLOW)
        try:
            for _ in range(40):
                await asyncio.sleep(0.5)
                if reader.at_eof():
                    break
                writer.write(b"x")
                await writer.drain()
            answer = await reader.read(4096)
        except (OSError, RuntimeError):  # closed while it was written to
            answer = await reader.read(4096) if not reader.exception() else b""
        writer.close()
        return answer[:12]

    bodies = [asyncio.create_task(trickle()) for _ in range(SLOW_BODIES)]
    await asyncio.sleep(4)
    await require_health(service)  # pictures have their most at once; what is no detection is answered
    answers = await asyncio.gather(*bodies)
    assert set(answers) <= {b"HTTP/1.1 408", b"HTTP/1.1 503", b""}
    await require_others_are_answered(service)
