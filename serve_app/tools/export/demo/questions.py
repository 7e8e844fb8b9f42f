"""The questions that the demo language model knows, with their answers, and the wordings each may come in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

QUESTIONS_FILE = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and the one answer to it."""

    question: str
    answer: str

    @property
    def wordings(self) -> tuple[str, ...]:
        """The question as it stands first, then as it is typed in a hurry: in lower case, without its last mark."""
        bare = self.question.rstrip("?.")
        return tuple(dict.fromkeys((self.question, self.question.lower(), bare, bare.lower())))


def read_questions(file: Path = QUESTIONS_FILE) -> tuple[Pair, ...]:
    return tuple(Pair(**entry) for entry in yaml.safe_load(file.read_text(encoding="utf-8")))
