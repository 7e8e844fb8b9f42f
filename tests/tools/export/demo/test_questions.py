"""The questions of the demo language model: well formed, each askable in one way only."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.tools.export.demo.questions import QUESTIONS_FILE, Pair, read_questions

PAIRS = read_questions()


def test_there_are_enough_and_not_too_many() -> None:
    assert 60 <= len(PAIRS) <= 100


def test_what_clients_and_benchmarks_count_on_is_among_them() -> None:
    answers = {pair.question: pair.answer for pair in PAIRS}
    counted = answers["Count from one to fifty."].removesuffix(".").split(", ")
    assert (counted[0], counted[20], counted[-1], len(set(counted))) == ("one", "twenty-one", "fifty", 50)
    assert answers["What is serve_app?"].startswith("serve_app is one Ray Serve application")
    assert sum(60 <= len(answer.split()) <= 120 for answer in answers.values()) >= 3
    assert any(not answer.isascii() for answer in answers.values())


def test_no_wording_belongs_to_two_questions() -> None:
    wordings = [wording for pair in PAIRS for wording in pair.wordings]
    assert len(wordings) == len(set(wordings))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.question)
def test_a_pair_is_short_and_ends_as_it_should(pair: Pair) -> None:
    assert pair.question == pair.question.strip()
    assert pair.question[0].isupper()
    assert pair.question[-1] in "?."
    assert len(pair.question) <= 80
    assert pair.answer == " ".join(pair.answer.split())
    assert 0 < len(pair.answer.split()) <= 120


def test_a_question_may_be_typed_in_a_hurry() -> None:
    assert Pair("Who are you?", "I").wordings == ("Who are you?", "who are you?", "Who are you", "who are you")


def test_an_entry_with_another_field_is_refused(tmp_path: Path) -> None:
    file = tmp_path / QUESTIONS_FILE.name
    file.write_text("- {question: Who, answer: I, hint: no}\n")
    with pytest.raises(TypeError, match="hint"):
        read_questions(file)
