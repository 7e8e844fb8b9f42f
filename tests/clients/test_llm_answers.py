"""How an answer grows, and what a person reads of it."""

import io

import pytest
from rich.console import Console

from serve_app.clients.llm.answers import Answer, spread_of
from serve_app.clients.llm.messages import Question
from serve_app.tools.prompts.report import Reporter, line_of, results_of, summary_of, verdict_of

STREAMED, WHOLE = Question("demo-llm", True, {}), Question("demo-llm", False, {})


def answered(number, *texts, error=None):
    """Sent at second 10; a text each tenth of a second."""
    answer = Answer(number, "Why?", sent_at_s=10.0)
    for position, text in enumerate(texts, 1):
        answer.take(text, 10 + position / 10)
    answer.end(20.0, error)
    return answer


def test_a_growing_text_counts_what_is_new_and_keeps_the_whole():
    answer = Answer(0, "Why?", sent_at_s=10.0)
    assert [answer.take(text, at) for text, at in (("Why? So", 10.5), ("Why? So.", 11.0))] == [" So", "."]
    assert (answer.text, answer.chunks, answer.characters) == ("Why? So.", 2, 4)
    assert (answer.to_first_s, answer.to_last_s) == (0.5, 1.0)


def test_the_prompt_alone_and_a_text_said_twice_are_nothing_new():
    answer = answered(0, "Why?", "Why? So", "Why? So")
    assert (answer.chunks, answer.text) == (1, "Why? So")
    assert answer.to_first_s == answer.to_last_s == pytest.approx(0.2)


def test_an_answer_that_adds_nothing_says_so_and_keeps_its_prompt():
    answer = answered(2, "Why?")
    assert line_of(STREAMED, answer) == "Model demo-llm - Request 2: no new text, after 10000.0 ms"
    assert results_of([answer]) == "Why?\n\n=========\n\n"


def test_a_line_tells_first_and_last_token_of_a_stream():
    line = line_of(STREAMED, answered(3, "Why? a", "Why? ab", "Why? abc"))
    assert line == "Model demo-llm - Request 3: first token 100.0 ms, last token 300.0 ms, 3 chunks"


def test_a_line_of_a_whole_answer_tells_characters_and_no_tokens():
    line = line_of(WHOLE, answered(3, "Why? abcd"))
    assert line == "Model demo-llm - Request 3: whole answer 100.0 ms, 5 characters (50.0/s)"


def test_results_hold_each_text_once_and_errors_in_their_place():
    answers = [answered(0, "Why? a", "Why? ab"), answered(1, error="full"), answered(2, "Why? c", error="cut")]
    assert results_of(answers) == (
        "Why? ab\n\n=========\n\nERROR: full\n\n=========\n\nERROR: cut\nWhy? c\n\n=========\n\n"
    )


def test_the_summary_of_a_stream_leaves_failures_out_of_its_times():
    answers = [answered(0, "Why? a", "Why? ab"), answered(1, "Why? a", "Why? a", "Why? abc"), answered(2, error="no")]
    assert summary_of(STREAMED, answers, 2.0) == [
        "  requests              3",
        "  failed                1",
        "  wall time             2.00 s",
        "  time to first token   p50 100.0 ms, p95 100.0 ms, max 100.0 ms",
        "  time to last token    p50 250.0 ms, p95 295.0 ms, max 300.0 ms",
        "  received              4 chunks (2.0/s); responses with new text, one a generation step",
        "  generated             7 characters (3.5/s)",
    ]


def test_the_summary_of_whole_answers_says_that_tokens_cannot_be_known():
    assert summary_of(WHOLE, [answered(0, "Why? a")], 0.5)[3:] == [
        "  time to whole answer  p50 100.0 ms, p95 100.0 ms, max 100.0 ms",
        "  generated             2 characters (4.0/s); tokens show in --streaming-mode only",
    ]


def test_where_all_failed_there_are_no_times():
    assert spread_of([None]) is None
    assert "  time to first token   -" in summary_of(STREAMED, [answered(0, error="no")], 1.0)


def test_the_verdict_passes_where_nothing_failed():
    assert verdict_of([answered(0, "Why? a")]) == ["PASS: vLLM example"]


def test_the_verdict_counts_reasons_and_shows_the_first():
    reasons = ["full", "late", "full", "cut", "odd", "off"]
    assert verdict_of([answered(0, "Why? a"), *(answered(1, error=reason) for reason in reasons)]) == [
        "FAIL: 6 of 7 requests failed",
        "  2 × full",
        "  1 × late",
        "  1 × cut",
        "  and 2 other reasons, in the results",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_gets_a_bar(terminal):
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=terminal, markup=False, highlight=False, width=100)
    with Reporter(STREAMED, 2, console) as reporter:
        reporter.on_end(answered(0, "Why? [bold]a"))
    assert "Model demo-llm - Request 0: first token 100.0 ms, last token 100.0 ms, 1 chunk" in seen.getvalue()
    assert ("1/2" in seen.getvalue()) is terminal


def test_verbose_shows_the_text_as_it_arrives():
    seen = io.StringIO()
    with Reporter(STREAMED, 1, Console(file=seen, markup=False), verbose=True) as reporter:
        reporter.on_text(Answer(4, "Why?"), " [red] so\n")
    assert seen.getvalue() == "Request 4 + ' [red] so\\n'\n"
