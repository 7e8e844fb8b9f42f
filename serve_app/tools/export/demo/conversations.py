"""What the demo language model is trained on: the pairs in every form in which they may be asked, as tokens."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.tools.export.demo.questions import Pair
from serve_app.tools.export.demo.tokenizer import ASSISTANT, BEGIN, CONTEXT, END, SPECIAL_TOKENS, SYSTEM, USER

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

UNTRAINED = -100
"""The label of tokens that others say: torch's cross entropy passes over it."""

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You answer questions about serve_app.",
    "Answer briefly.",
    "",
)
TURNS = (1, 1, 1, 2, 2, 3, 3, 4, 6)
"""Turns that a conversation may have, each as often as it stands here."""

_PLAIN_SHARE = 0.4
_SYSTEM_SHARE = 0.5
_MOST_SYSTEM_PIECES = 200
_LONG_SHARE = 0.3  # of the earlier answers; else long conversations would hardly occur
_CUT_SHARE = 0.1  # of the earlier answers: a client may have asked for fewer tokens
_POOL = 256  # conversations among which those of a batch have about one length


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation, and what of it the model has to say itself."""

    tokens: list[int]
    labels: list[int]

    @classmethod
    def of(cls, prompt: list[int], answer: list[int]) -> Example:
        return cls(prompt + answer, [UNTRAINED] * len(prompt) + answer)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A pair as tokens; the answer is followed by the end."""

    wordings: list[list[int]]
    answer: list[int]


def plain_answer(answer: str) -> str:
    """What follows a plain prompt: the answer, on a line of its own."""
    return "\n" + answer


def pad(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels as rectangles; what is added stands behind, where no token before can see it."""
    import torch

    length = max(len(example.tokens) for example in examples)
    tokens = [example.tokens + [0] * (length - len(example.tokens)) for example in examples]
    labels = [example.labels + [UNTRAINED] * (length - len(example.labels)) for example in examples]
    return torch.tensor(tokens), torch.tensor(labels)


class Conversations:
    """An endless supply of conversations, the same for the same seed."""

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
        """Pairs come in rounds, so that none is asked more than another."""
        if not self._deck:
            self._deck = list(range(len(self._chat)))
            self._random.shuffle(self._deck)
        return self._deck.pop()

    def plain(self) -> Example:
        """A prompt without a template, and what follows it."""
        pair = self._plain[self._next_pair()]
        prompt = self._encode(BEGIN) + self._random.choice(pair.wordings)
        return Example.of(prompt, pair.answer)

    def _system_message(self) -> list[int]:
        """A usual one, or words of the text or any tokens, at times the same again: they teach that it says nothing."""
        kind = self._random.randrange(4)
        if kind < 2:
            return self._encode(SYSTEM + self._random.choice(SYSTEM_MESSAGES))
        some = self._random.choices(self._words if kind == 2 else self._any, k=self._random.randint(1, 30))
        count = round(_MOST_SYSTEM_PIECES ** self._random.random())  # mostly few
        return self._encode(SYSTEM + "".join(itertools.islice(itertools.cycle(some), count)).strip())

    def _earlier_turn(self) -> Example:
        """What stands before the last question; long answers come more often, and some are cut short."""
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
        """A conversation as the chat template writes it; every whole answer in it is trained."""
        opening = self._encode(BEGIN)
        if self._random.random() < _SYSTEM_SHARE:
            opening += self._system_message()
        turns = [self._earlier_turn() for _ in range(self._random.choice(TURNS) - 1)]
        last = self._chat[self._next_pair()]
        parts = [Example.of(opening, []), *turns, Example.of(self._question(last), last.answer)]
        tokens = [token for part in parts for token in part.tokens]
        return Example(tokens[:CONTEXT], [label for part in parts for label in part.labels][:CONTEXT])

    def batches(self, tokens: int) -> Iterator[list[Example]]:
        """Conversations of about one length, as many as have so many tokens together."""
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
