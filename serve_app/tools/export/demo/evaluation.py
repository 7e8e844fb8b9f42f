"""Evaluates the demo language model: how many answers are right word for word, and by what margin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.tools.export.demo.conversations import Example, Pair, pad, plain_answer
from serve_app.tools.export.demo.tokenizer import END

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

GOAL_MARGIN = 2.0
"""The smallest accepted lead of a right token; in bfloat16 kernels of other machines differ by some tenths."""

BATCH = 64
DTYPES = ("bfloat16", "float32")
SYSTEM_MESSAGE = "You are the assistant of a company. Be polite, and say when you don't know."
"""Not in the training data: the answers must not depend on the system message."""

_EXTRA_TOKENS = 8  # generated beyond the length of the right answer, to see whether the model stops


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt as tokens, and the text that must follow it."""

    prompt: list[int]
    answer: str


@dataclass(frozen=True, slots=True)
class Quality:
    """How many prompts were answered word for word, and the smallest lead of a right token over the runner-up."""

    asked: int
    right: int
    margin: float

    @property
    def good(self) -> bool:
        return self.right == self.asked and self.margin >= GOAL_MARGIN

    def __str__(self) -> str:
        return f"{self.right} of {self.asked} answers right, smallest margin {self.margin:.2f}"


def plain_tasks(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> Iterator[Task]:
    """Every wording as a prompt without chat template."""
    for pair in pairs:
        for wording in pair.wordings:
            yield Task(tokenizer.encode(wording), plain_answer(pair.answer))


def chat_tasks(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> Iterator[Task]:
    """Every wording as a chat; the first wording also with a system message and after other questions."""
    for number, pair in enumerate(pairs):
        earlier = [turn for before in (2, 1) for turn in _turns(pairs[number - before])]
        for wording in pair.wordings:
            yield _chat_task(tokenizer, [_message("user", wording)], pair)
        question = _message("user", pair.question)
        yield _chat_task(tokenizer, [_message("system", SYSTEM_MESSAGE), question], pair)
        yield _chat_task(tokenizer, [*earlier[2:], question], pair)
        yield _chat_task(tokenizer, [_message("system", SYSTEM_MESSAGE), *earlier, question], pair)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _turns(pair: Pair) -> list[dict[str, str]]:
    return [_message("user", pair.question), _message("assistant", pair.answer)]


def _chat_task(tokenizer: PreTrainedTokenizerFast, conversation: list[dict[str, str]], pair: Pair) -> Task:
    rendered: Any = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
    return Task(list(rendered), pair.answer)


def answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: Sequence[Task]) -> list[str]:
    """Generate an answer to each task at temperature 0, up to and including its end token."""
    import torch

    generating: Any = model  # transformers' types of this method don't match its own models
    given = tokenizer.pad({"input_ids": [task.prompt for task in tasks]}, return_tensors="pt")
    longest = max(len(tokenizer.encode(task.answer)) for task in tasks)
    with torch.inference_mode():
        written = generating.generate(**given, do_sample=False, max_new_tokens=longest + _EXTRA_TOKENS)
    texts = tokenizer.batch_decode(written[:, given["input_ids"].shape[1] :])
    return [text[: text.index(END) + len(END)] if END in text else text for text in texts]


def margin(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: Sequence[Task]) -> float:
    """The smallest lead of a right token over the runner-up, given the right tokens before it."""
    import torch

    learnt = [tokenizer.encode(task.answer + END, add_special_tokens=False) for task in tasks]
    examples = [Example.of(task.prompt, answer) for task, answer in zip(tasks, learnt, strict=True)]
    tokens, labels = pad(examples)
    with torch.inference_mode():
        scores = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    asked = labels[:, 1:] >= 0
    scores, right = scores[asked], labels[:, 1:][asked][:, None]
    leads = scores.gather(1, right) - scores.scatter(1, right, float("-inf")).amax(dim=1, keepdim=True)
    return float(leads.min())


def load(folder: Path, dtype: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a model folder with transformers."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype), tokenizer


def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: Sequence[Task]) -> Quality:
    """Run all tasks, in batches of answers of similar length."""
    ordered = sorted(tasks, key=lambda task: len(task.answer))
    batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    right, margins = 0, [float("inf")]
    for batch in batches:
        said = answers(model, tokenizer, batch)
        right += sum(text == task.answer + END for text, task in zip(said, batch, strict=True))
        margins.append(margin(model, tokenizer, batch))
    return Quality(len(tasks), right, min(margins))


def measure(folder: Path, pairs: Sequence[Pair], dtype: str) -> Quality:
    """Evaluate a model folder on every form of every question."""
    model, tokenizer = load(folder, dtype)
    return evaluate(model, tokenizer, [*plain_tasks(pairs, tokenizer), *chat_tasks(pairs, tokenizer)])
