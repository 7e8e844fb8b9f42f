"""Every generation is counted and closed, and autoscaling gets the scheduler's figures."""

import asyncio

import pytest
from vllm.v1.metrics.stats import SchedulerStats

from serve_app.llm.engine import SchedulerLoad


async def collect(outputs):
    return [output async for output in outputs]


async def test_generations_of_openai_and_of_triton_clients_are_counted_with_the_times_of_their_stages(
    start_engine, output, counts
):
    first, last = output("a"), output("b", finished=True)
    engine, client = start_engine(first, last)
    assert await collect(client.generate("ask", None, "id", priority=1)) == [first, last]
    assert await collect(engine.generate("ask", None, "id")) == [first, last]
    assert counts(engine.statistics) == (2, 0, 0)
    row = engine.statistics.row("demo-llm")
    assert (row["name"], row["version"], row["inference_count"]) == ("demo-llm", "1", 2)
    seconds = {stage: duration["ns"] / 1e9 for stage, duration in row["inference_stats"].items()}
    assert (seconds["queue"], seconds["compute_input"], seconds["compute_infer"]) == (1.0, 2.0, 4.0)


async def test_a_complete_generation_without_times_is_a_success(start_engine, output, counts):
    engine, _ = start_engine(output(finished=True, metrics=None))
    await collect(engine.generate("ask", None, "id"))
    assert counts(engine.statistics) == (1, 0, 0)


async def test_a_caller_that_leaves_closes_the_generation_at_once(start_engine, output, counts):
    for finished, outcome in ((False, (0, 1, 0)), (True, (1, 0, 0))):
        engine, client = start_engine(output(finished=finished), output())
        outputs = engine.generate("ask", None, "id")
        await anext(outputs)
        assert (client.closed, engine.statistics.running) == (0, 1)
        await outputs.aclose()
        assert (client.closed, counts(engine.statistics)) == (1, outcome)
    engine, client = start_engine(output(finished=True))
    await engine.generate("ask", None, "id").aclose()
    assert (client.requests, counts(engine.statistics)) == ([], (0, 0, 0))


async def test_a_generation_that_raises_has_failed(start_engine, output, counts):
    for problem in (RuntimeError("a mistake"), asyncio.CancelledError()):
        engine, client = start_engine(output(), problem)
        with pytest.raises(type(problem)):
            await collect(engine.generate("ask", None, "id"))
        assert (client.closed, counts(engine.statistics)) == (1, (0, 1, 0))


async def test_shutdown_stops_the_client_if_there_is_one(start_engine):
    engine, client = start_engine()
    await engine.shutdown()
    assert client.stopped == 1
    engine._engine_client = None
    await engine.shutdown()


def stats(running=0, waiting=0, skipped=0, use=0.0):
    return SchedulerStats(
        num_running_reqs=running, num_waiting_reqs=waiting, num_skipped_waiting_reqs=skipped, kv_cache_usage=use
    )


def test_the_load_is_that_of_the_last_step_summed_over_engines_and_always_floats(start_engine):
    load, (engine, client) = SchedulerLoad(), start_engine()
    assert client.logger_manager.stat_loggers == [engine.load]
    for steps, pending, running, use in (
        ([], 0, 0, 0.0),
        ([(stats(running=8, waiting=5, skipped=1, use=0.5), 0)], 6, 8, 0.5),
        ([(None, 0)], 6, 8, 0.5),  # a step without the scheduler
        ([(stats(running=1, use=0.1), 0)], 0, 1, 0.1),
        ([(stats(running=2, waiting=1, use=0.9), 0), (stats(running=3, waiting=4, use=0.2), 1)], 5, 5, 0.9),
    ):
        for scheduler_stats, index in steps:
            load.record(scheduler_stats, None, mm_cache_stats=None, engine_idx=index)
        assert load.report() == {"pending": pending, "running": running, "kv_cache_use": use}
        assert {type(value) for value in load.report().values()} == {float}
