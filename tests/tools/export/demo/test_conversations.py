"""What the demo language model is trained on is what it will be asked."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

from serve_app.tools.export.demo.conversations import UNTRAINED, Conversations, Example, pad
from serve_app.tools.export.demo.language import learn_tokenizer
from serve_app.tools.export.demo.questions import read_questions
from serve_app.tools.export.demo.tokenizer import CONTEXT

PAIRS = read_questions()
TOKENIZER: Any = learn_tokenizer(PAIRS)
ANSWERS = {wording: pair.answer for pair in PAIRS for wording in pair.wordings}
WHOLE = {pair.answer for pair in PAIRS}
MESSAGE = re.compile(r"<\|(system|user|assistant)\|>(.*?)(?=<\|(?:system|user|assistant)\|>|$)", re.DOTALL)


def conversations(seed: int = 3) -> Conversations:
    return Conversations(PAIRS, TOKENIZER, seed)


def learnt(example: Example) -> str:
    return TOKENIZER.decode([label for label in example.labels if label != UNTRAINED])


def test_chats_are_exactly_what_the_template_writes() -> None:
    supply, roles = conversations(), Counter[str]()
    for _ in range(200):
        example = supply.chat()
        said = MESSAGE.findall(TOKENIZER.decode(example.tokens))
        if any(role == "assistant" and content.removesuffix("<|end|>") not in WHOLE for role, content in said):
            continue  # half a word may have other tokens than it has in the whole one
        messages = [{"role": role, "content": content.removesuffix("<|end|>")} for role, content in said]
        assert TOKENIZER.apply_chat_template(messages, return_dict=False) == example.tokens
        roles.update(role for role, _ in said)
    assert roles["assistant"] == roles["user"] > 200
    assert 40 < roles["system"] < 150


def test_plain_prompts_are_encoded_as_a_completion_encodes_them() -> None:
    supply = conversations()
    for _ in range(100):
        example = supply.plain()
        asked, _, said = TOKENIZER.decode(example.tokens).removeprefix("<|begin|>").partition("\n")
        prompt = TOKENIZER.encode(asked)
        assert example.tokens[: len(prompt)] == prompt
        assert said == ANSWERS[asked] + "<|end|>"
        assert learnt(example) == f"\n{said}"


def test_only_whole_answers_are_learnt() -> None:
    supply, cut = conversations(), 0
    for _ in range(200):
        example = supply.chat()
        assert all(label in (token, UNTRAINED) for token, label in zip(example.tokens, example.labels, strict=True))
        texts = learnt(example).split("<|end|>")
        assert set(texts[:-1]) <= WHOLE
        assert texts[-1] == "" or len(example.tokens) == CONTEXT
        said = [content for role, content in MESSAGE.findall(TOKENIZER.decode(example.tokens)) if role == "assistant"]
        cut += len(said) - len(texts) + 1
    assert cut > 5


def test_every_question_comes_in_every_wording() -> None:
    supply, asked = conversations(), set[str]()
    for _ in range(4000):
        asked.add(TOKENIZER.decode(supply.plain().tokens).removeprefix("<|begin|>").partition("\n")[0])
    assert asked == set(ANSWERS)


def test_batches_are_full_and_the_same_for_the_same_seed() -> None:
    first, second, other = (list(itertools.islice(conversations(seed).batches(2048), 40)) for seed in (3, 3, 4))
    assert first == second != other
    sizes = [len(batch) * max(len(example.tokens) for example in batch) for batch in first]
    assert max(sizes) <= 2048
    assert sum(size > 1024 for size in sizes) > 35


def test_what_fills_a_batch_up_stands_behind_and_is_not_learnt() -> None:
    tokens, labels = pad([Example.of([5], [6, 7]), Example.of([5], [6])])
    assert tokens.tolist() == [[5, 6, 7], [5, 6, 0]]
    assert labels.tolist() == [[UNTRAINED, 6, 7], [UNTRAINED, 6, UNTRAINED]]
