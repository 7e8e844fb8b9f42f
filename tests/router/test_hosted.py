"""A deployment in the router's own process: what it answers itself, and what the other routers are asked for."""

import asyncio
import time

import pytest

from serve_app.errors import DeadlineExceededError, NotFoundError, ReplicaKilledError, ReplicaLostError
from serve_app.router import upstream as upstreams
from serve_app.router.hosted import Hosted, HostedUpstream


class Replica:
    """Answers what a test says, and counts how many it works on at a time."""

    async def __init__(self, outcome="here"):
        await asyncio.sleep(0)
        self.outcome, self.running, self.most = outcome, 0, 0

    async def infer(self, *arguments):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.01)
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return self.outcome, *arguments
        finally:
            self.running -= 1

    async def stream(self, *outcomes):
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, asyncio.Event):
                await outcome.wait()
            yield outcome

    def metadata(self, model):
        return {"name": model}


@pytest.fixture
def host(handle):
    """The upstream over a replica here, the replica, and the handle of the others with its script."""

    async def make(*script, outcome="here", at_once=2):
        hosted = Hosted("vision", Replica, (outcome,), at_once)
        replica, others = await hosted.start(), handle(script=script)
        return HostedUpstream(hosted, replica, others), replica, others

    return make


async def test_what_is_asked_once_is_answered_here(host):
    vision, _, others = await host()
    assert await vision.call("infer", 1, deadline=time.time() + 60) == ("here", 1)
    assert await vision.call("metadata", "yolo") == {"name": "yolo"}
    assert [answer async for answer in vision.stream("stream", 1, 2)] == [1, 2]
    assert others.calls == []


async def test_sequences_go_where_their_session_belongs(host):
    vision, _, others = await host("there", [1, 2])
    assert await vision.call("infer", 1, session="m/7") == "there"
    assert [answer async for answer in vision.stream("stream", session="m/7")] == [1, 2]
    assert [options["session_id"] for _, _, options in others.calls] == ["m/7", "m/7"]


async def test_an_adapter_is_answered_where_serve_keeps_it(host):
    model, _, others = await host([1])
    assert [answer async for answer in model.stream("stream", adapter="llama:poet")] == [1]
    assert [options["multiplexed_model_id"] for _, _, options in others.calls] == ["llama:poet"]


async def test_what_is_lost_here_is_answered_by_another_unless_it_has_begun_or_must_not_run_twice(host, monkeypatch):
    monkeypatch.setattr(upstreams, "LOST_PAUSE_S", 0.01)
    for lost in (ReplicaLostError("broken"), ReplicaKilledError("killed")):
        vision, _, others = await host("there", outcome=lost)
        assert await vision.call("infer", 1, deadline=time.time() + 60) == "there"
        with pytest.raises(type(lost)):
            await vision.call("infer", 1, retry=False)
        assert len(others.calls) == 1
        vision, _, others = await host([1, 2])
        assert [answer async for answer in vision.stream("stream", lost)] == [1, 2]
        for arguments, options in (((0, lost), {}), ((lost,), {"retry": False})):
            with pytest.raises(type(lost)):
                [answer async for answer in vision.stream("stream", *arguments, **options)]
        assert len(others.calls) == 1


async def test_an_error_of_the_request_is_the_answer(host):
    vision, _, others = await host(outcome=NotFoundError("no model"))
    with pytest.raises(NotFoundError, match="no model"):
        await vision.call("infer")
    assert others.calls == []


async def test_work_waits_for_its_turn_within_its_deadline_and_metadata_does_not_wait(host):
    vision, replica, _ = await host()
    await asyncio.gather(*(vision.call("infer") for _ in range(10)))
    assert replica.most == 2
    forever = asyncio.Event()
    streams = [vision.stream("stream", 1, forever) for _ in range(2)]
    assert [await anext(stream) for stream in streams] == [1, 1]
    for late in (
        vision.call("infer", deadline=time.time() + 0.05),
        anext(vision.stream("stream", deadline=time.time() + 0.05)),
    ):
        with pytest.raises(DeadlineExceededError):
            await late
    assert await vision.call("metadata", "yolo") == {"name": "yolo"}
    for stream in streams:
        await stream.aclose()
    assert await vision.call("infer") == ("here",)


async def test_what_belongs_to_all_is_asked_of_all(host, handle):
    _, replica, _ = await host()
    peers = handle({"index": lambda: "one"}, {"index": lambda: "two"})
    everywhere = HostedUpstream(Hosted("vision", Replica, (), 2), replica, peers)
    assert await everywhere.everywhere("index") == ["one", "two"]
