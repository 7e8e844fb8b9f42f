"""Prompts to a language model from a program: all over one stream, with each answer's times."""

import asyncio
from collections.abc import Iterable
from typing import Any

from serve_app.clients.llm.answers import Answer
from serve_app.clients.llm.exchange import Exchange, Plan
from serve_app.clients.llm.messages import Question


class Silence:
    """Nobody wants to hear of it before the end."""

    def on_text(self, answer: Answer, new: str) -> None:
        pass

    def on_end(self, answer: Answer) -> None:
        pass


def ask(
    prompts: Iterable[str],
    model: str = "demo-llm",
    url: str = "localhost:8001",
    concurrency: int | None = None,
    timeout_s: float | None = None,
    **sampling: Any,
) -> list[Answer]:
    """In the prompts' order; one that failed says so in its `error`. `sampling` is vLLM's, as in max_tokens=60.

    An answer's `text` begins with its prompt. Not for a running event loop: this starts one.
    """
    answers = [Answer(number, prompt) for number, prompt in enumerate(prompts)]
    question = Question(model, True, sampling)
    asyncio.run(Exchange(Plan(url, question, concurrency, timeout_s), answers, Silence()).run())
    return answers
