"""The questions of the demo language model, and the conversations that it is trained on."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from serve_app.tools.export.demo.conversations import (
    QUESTIONS_FILE,
    UNTRAINED,
    Conversations,
    Example,
    Pair,
    pad,
    read_questions,
)
from serve_app.tools.export.demo.language import learn_tokenizer
from serve_app.tools.export.demo.tokenizer import CONTEXT

PAIRS = read_questions()
TOKENIZER: Any = learn_tokenizer(PAIRS)
ANSWERS = {wording: pair.answer for pair in PAIRS for wording in pair.wordings}
COMPLETE = {pair.answer for pair in PAIRS}
MESSAGE = re.compile(r"<\|(system|user|assistant)\|>(.*?)(?=<\|(?:system|user|assistant)\|>|$)", re.DOTALL)


def test_questions_are_well_formed_and_no_two_share_a_wording() -> None:
    assert 60 <= len(PAIRS) <= 100
    assert Pair("Who are you?", "I").wordings == ("Who are you?", "who are you?", "Who are you", "who are you")
    wordings = [wording for pair in PAIRS for wording in pair.wordings]
    assert len(wordings) == len(set(wordings))
    for pair in PAIRS:
        assert re.fullmatch(r"[A-Z].{1,78}[?.]", pair.question), pair.question
        assert pair.answer == " ".join(pair.answer.split()), pair.question
        assert 0 < len(pair.answer.split()) <= 120, pair.question


def test_questions_that_clients_and_benchmarks_rely_on_are_there() -> None:
    answers = {pair.question: pair.answer for pair in PAIRS}
    numbers = answers["Count from one to fifty."].removesuffix(".").split(", ")
    assert (numbers[0], numbers[20], numbers[-1], len(set(numbers))) == ("one", "twenty-one", "fifty", 50)
    assert answers["What is serve_app?"].startswith("serve_app is one Ray Serve application")
    assert sum(60 <= len(answer.split()) <= 120 for answer in answers.values()) >= 3
    assert any(not answer.isascii() for answer in answers.values())


def test_a_question_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    file = tmp_path / QUESTIONS_FILE.name
    file.write_text("- {question: Who, answer: I, hint: no}\n")
    with pytest.raises(TypeError, match="hint"):
        read_questions(file)


def conversations(seed: int = 3) -> Conversations:
    return Conversations(PAIRS, TOKENIZER, seed)


def trained_text(example: Example) -> str:
    return TOKENIZER.decode([label for label in example.labels if label != UNTRAINED])


def test_chats_are_rendered_as_by_the_chat_template_and_only_complete_answers_are_trained() -> None:
    supply, roles, truncated = conversations(), Counter[str](), 0
    for _ in range(200):
        example = supply.chat()
        assert all(label in (token, UNTRAINED) for token, label in zip(example.tokens, example.labels, strict=True))
        *complete, rest = trained_text(example).split("<|end|>")
        assert set(complete) <= COMPLETE
        assert rest == "" or len(example.tokens) == CONTEXT
        parts = [
            (role, content.removesuffix("<|end|>"))
            for role, content in MESSAGE.findall(TOKENIZER.decode(example.tokens))
        ]
        answers = [content for role, content in parts if role == "assistant"]
        truncated += len(answers) - len(complete)
        if not set(answers) <= COMPLETE:
            continue  # half a word may have other tokens than in the complete answer
        messages = [{"role": role, "content": content} for role, content in parts]
        assert TOKENIZER.apply_chat_template(messages, return_dict=False) == example.tokens
        roles.update(role for role, _ in parts)
    assert roles["assistant"] == roles["user"] > 200
    assert 40 < roles["system"] < 150
    assert truncated > 5


def test_plain_prompts_come_in_every_wording_and_are_encoded_as_for_a_completion() -> None:
    supply, asked = conversations(), set[str]()
    for number in range(4000):
        example = supply.plain()
        prompt, _, answer = TOKENIZER.decode(example.tokens).removeprefix("<|begin|>").partition("\n")
        asked.add(prompt)
        if number < 100:
            tokens = TOKENIZER.encode(prompt)
            assert example.tokens[: len(tokens)] == tokens
            assert answer == ANSWERS[prompt] + "<|end|>"
            assert trained_text(example) == f"\n{answer}"
    assert asked == set(ANSWERS)


def test_batches_are_full_and_reproducible_by_seed() -> None:
    first, second, other = (list(itertools.islice(conversations(seed).batches(2048), 40)) for seed in (3, 3, 4))
    assert first == second != other
    sizes = [len(batch) * max(len(example.tokens) for example in batch) for batch in first]
    assert max(sizes) <= 2048
    assert sum(size > 1024 for size in sizes) > 35


def test_padding_is_on_the_right_and_not_trained() -> None:
    tokens, labels = pad([Example.of([5], [6, 7]), Example.of([5], [6])])
    assert tokens.tolist() == [[5, 6, 7], [5, 6, 0]]
    assert labels.tolist() == [[UNTRAINED, 6, 7], [UNTRAINED, 6, UNTRAINED]]
