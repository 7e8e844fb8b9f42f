"""What counts as done, as failed, and where the time went."""

from types import SimpleNamespace

import pytest

from serve_app.llm.statistics import Statistics


def times(queued, scheduled, first, last):
    return SimpleNamespace(queued_ts=queued, scheduled_ts=scheduled, first_token_ts=first, last_token_ts=last)


def test_a_generation_counts_with_the_times_of_its_stages():
    statistics = Statistics()
    with statistics.watching() as note_times:
        assert statistics.running == 1
        note_times(times(1.0, 1.5, 2.5, 4.5))
    row = statistics.row("demo-llm")
    assert (row["name"], row["version"], row["inference_count"]) == ("demo-llm", "1", 1)
    assert row["inference_stats"]["queue"] == {"count": 1, "ns": 500_000_000}
    assert row["inference_stats"]["compute_input"] == {"count": 1, "ns": 1_000_000_000}
    assert row["inference_stats"]["compute_infer"] == {"count": 1, "ns": 2_000_000_000}
    assert row["inference_stats"]["fail"]["count"] == statistics.running == 0


def test_who_leaves_before_the_end_counts_as_failed_and_after_it_as_done():
    statistics = Statistics()
    with pytest.raises(GeneratorExit), statistics.watching():
        raise GeneratorExit

    def leave_after_the_last_token():
        with statistics.watching() as note_times:
            note_times(times(0, 0, 0, 0))
            raise GeneratorExit

    with pytest.raises(GeneratorExit):
        leave_after_the_last_token()
    stats = statistics.row("demo-llm")["inference_stats"]
    assert (stats["fail"]["count"], stats["success"]["count"], statistics.running) == (1, 1, 0)
