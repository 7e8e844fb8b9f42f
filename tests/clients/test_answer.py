"""How an answer grows."""

import pytest

from serve_app.clients.llm.answer import Answer, Latency


def test_an_answer_counts_what_is_new_and_keeps_the_whole_text():
    answer = Answer(0, "Why?", sent_at_s=10.0)
    updates = [("Why?", 10.1), ("Why? So", 10.5), ("Why? So", 10.7), ("Why? So.", 11.0)]
    assert [answer.update(text, at_s) for text, at_s in updates] == ["", " So", "", "."]
    assert (answer.text, answer.chunks, answer.characters) == ("Why? So.", 2, 4)
    assert (answer.to_first_s, answer.to_last_s) == (0.5, 1.0)
    answer.end(20.0)
    assert (answer.ended, answer.to_last_s) == (True, 1.0)


def test_an_answer_that_adds_nothing_to_its_prompt_ends_at_its_end():
    answer = Answer(0, "Why?", sent_at_s=10.0)
    answer.update("Why?", 10.1)
    answer.end(20.0)
    assert (answer.text, answer.chunks, answer.to_first_s, answer.to_last_s) == ("Why?", 0, None, 10.0)


def test_latency_is_none_without_measurements():
    assert Latency.of([None]) is None
    assert Latency.of([0.1, None, 0.3]) == Latency(pytest.approx(0.2), pytest.approx(0.29), 0.3)
