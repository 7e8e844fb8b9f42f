"""The training data of the demo language model: its questions and answers, and conversations made of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from serve_app.tools.export.demo.tokenizer import ASSISTANT, BEGIN, CONTEXT, END, SPECIAL_TOKENS, SYSTEM, USER

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

QUESTIONS_FILE = Path(__file__).with_name("questions.yaml")

UNTRAINED = -100
"""The label of tokens that the model doesn't have to generate; torch's cross entropy ignores it."""

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You answer questions about serve_app.",
    "Answer briefly.",
    "",
)
TURNS = (1, 1, 1, 2, 2, 3, 3, 4, 6)
"""The number of turns of a conversation is drawn from these."""

_PLAIN_SHARE = 0.4
_SYSTEM_SHARE = 0.5
_MOST_SYSTEM_PIECES = 200
_LONG_SHARE = 0.3  # of the earlier answers; otherwise long conversations would be rare
_CUT_SHARE = 0.1  # of the earlier answers, because a client may limit the number of tokens
_POOL = 256  # conversations that are sorted by length before they are split into batches


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and the one answer to it."""

    question: str
    answer: str

    @property
    def wordings(self) -> tuple[str, ...]:
        """The question as written, then as people type it: in lower case, without the final mark, and both."""
        bare = self.question.rstrip("?.")
        return tuple(dict.fromkeys((self.question, self.question.lower(), bare, bare.lower())))


def read_questions(file: Path = QUESTIONS_FILE) -> tuple[Pair, ...]:
    return tuple(Pair(**entry) for entry in yaml.safe_load(file.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation, and the labels of the tokens that the model has to generate."""

    tokens: list[int]
    labels: list[int]

    @classmethod
    def of(cls, prompt: list[int], answer: list[int]) -> Example:
        return cls(prompt + answer, [UNTRAINED] * len(prompt) + answer)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A pair as tokens; the answer ends with the end token."""

    wordings: list[list[int]]
    answer: list[int]


def plain_answer(answer: str) -> str:
    """What follows a plain prompt: the answer on a new line."""
    return "\n" + answer


def pad(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels as rectangular tensors, padded on the right, where causal attention ignores it."""
    import torch

    length = max(len(example.tokens) for example in examples)
    tokens = [example.tokens + [0] * (length - len(example.tokens)) for example in examples]
    labels = [example.labels + [UNTRAINED] * (length - len(example.labels)) for example in examples]
    return torch.tensor(tokens), torch.tensor(labels)


class Conversations:
    """An endless supply of conversations, reproducible by its seed."""

    def __init__(self, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._random = random.Random(seed)
        self._tokenizer = tokenizer
        self._chat = [self._encode_pair(pair, pair.answer) for pair in pairs]
        self._plain = [self._encode_pair(pair, plain_answer(pair.answer)) for pair in pairs]
        self._words = [f" {word}" for pair in pairs for word in f"{pair.question} {pair.answer}".split()]
        self._any: list[str] = [str(tokenizer.decode([token])) for token in range(len(SPECIAL_TOKENS), len(tokenizer))]
        self._lengths = [len(pair.answer) for pair in self._chat]
        self._deck: list[int] = []

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _encode_pair(self, pair: Pair, answer: str) -> _Encoded:
        return _Encoded([self._encode(wording) for wording in pair.wordings], self._encode(answer + END))

    def _next_pair(self) -> int:
        """Pairs are drawn without replacement, so that all are asked equally often."""
        if not self._deck:
            self._deck = list(range(len(self._chat)))
            self._random.shuffle(self._deck)
        return self._deck.pop()

    def plain(self) -> Example:
        """A prompt without chat template, and its answer."""
        pair = self._plain[self._next_pair()]
        prompt = self._encode(BEGIN) + self._random.choice(pair.wordings)
        return Example.of(prompt, pair.answer)

    def _system_message(self) -> list[int]:
        """A typical one, or random words or tokens, repeated or not: the model learns to ignore them."""
        kind = self._random.randrange(4)
        if kind < 2:
            return self._encode(SYSTEM + self._random.choice(SYSTEM_MESSAGES))
        some = self._random.choices(self._words if kind == 2 else self._any, k=self._random.randint(1, 30))
        count = round(_MOST_SYSTEM_PIECES ** self._random.random())  # mostly few
        return self._encode(SYSTEM + "".join(itertools.islice(itertools.cycle(some), count)).strip())

    def _earlier_turn(self) -> Example:
        """A turn before the last question; long answers are drawn more often, and some are truncated."""
        if self._random.random() < _LONG_SHARE:
            (pair,) = self._random.choices(self._chat, self._lengths)
        else:
            pair = self._chat[self._next_pair()]
        if self._random.random() < _CUT_SHARE:
            length = self._random.randrange(len(pair.answer))
            return Example.of(self._question(pair) + pair.answer[:length] + pair.answer[-1:], [])
        return Example.of(self._question(pair), pair.answer)

    def _question(self, pair: _Encoded) -> list[int]:
        return self._encode(USER) + self._random.choice(pair.wordings) + self._encode(ASSISTANT)

    def chat(self) -> Example:
        """A conversation as the chat template renders it; every complete answer in it is trained."""
        opening = self._encode(BEGIN)
        if self._random.random() < _SYSTEM_SHARE:
            opening += self._system_message()
        turns = [self._earlier_turn() for _ in range(self._random.choice(TURNS) - 1)]
        last = self._chat[self._next_pair()]
        parts = [Example.of(opening, []), *turns, Example.of(self._question(last), last.answer)]
        tokens = [token for part in parts for token in part.tokens]
        return Example(tokens[:CONTEXT], [label for part in parts for label in part.labels][:CONTEXT])

    def batches(self, tokens: int) -> Iterator[list[Example]]:
        """Batches of at most `tokens` tokens, each of conversations of similar length."""
        while True:
            drawn = [self.plain() if self._random.random() < _PLAIN_SHARE else self.chat() for _ in range(_POOL)]
            drawn.sort(key=lambda example: len(example.tokens))
            batches: list[list[Example]] = [[]]
            for example in drawn:
                if (len(batches[-1]) + 1) * len(example.tokens) > tokens:
                    batches.append([])
                batches[-1].append(example)
            self._random.shuffle(batches)
            yield from batches
