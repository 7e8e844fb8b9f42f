"""What autoscaling learns of a language model's engine."""

from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

from serve_app.llm.load import Load


def stats(running=0, waiting=0, skipped=0, use=0.0):
    return SchedulerStats(
        num_running_reqs=running, num_waiting_reqs=waiting, num_skipped_waiting_reqs=skipped, kv_cache_usage=use
    )


def test_an_engine_that_has_done_nothing_has_no_load():
    assert Load().pressure() == {"pending": 0.0, "running": 0.0, "kv_cache_use": 0.0}


def test_the_last_step_is_what_counts():
    load = Load()
    load.record(stats(running=8, waiting=5, skipped=1, use=0.5), None, mm_cache_stats=None, engine_idx=0)
    assert load.pressure() == {"pending": 6.0, "running": 8.0, "kv_cache_use": 0.5}
    load.record(None, None)  # a step without the scheduler
    load.record(stats(running=1, use=0.1), None)
    assert load.pressure() == {"pending": 0.0, "running": 1.0, "kv_cache_use": 0.1}


def test_of_several_engines_the_requests_are_added_and_the_fullest_memory_counts():
    load = Load()
    load.record(stats(running=2, waiting=1, use=0.9), None, engine_idx=0)
    load.record(stats(running=3, waiting=4, use=0.2), None, engine_idx=1)
    told = load.pressure()
    assert told == {"pending": 5.0, "running": 5.0, "kv_cache_use": 0.9}
    assert all(type(value) is float for value in told.values())  # Ray turns reports of anything else off


def test_it_has_every_method_that_vllm_calls_on_a_logger():
    names = [name for name in vars(StatLoggerBase) if not name.startswith("_")]
    assert [name for name in names if not callable(getattr(Load(), name, None))] == []
