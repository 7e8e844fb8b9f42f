"""Trains the demo language model on its questions, evaluates it on all of them, and ships it."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress

from serve_app.tools.export.demo.conversations import (
    UNTRAINED,
    Conversations,
    Example,
    Pair,
    pad,
    read_questions,
)
from serve_app.tools.export.demo.evaluation import DTYPES, GOAL_MARGIN, Quality, measure
from serve_app.tools.export.demo.tokenizer import CONTEXT, build_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

LANGUAGE_FOLDER = "demo-llm"
STEPS = 2200
SEED = 11
_BATCH_TOKENS = 2048
_PEAK_RATE = 2e-3
_WARMUP_STEPS = 50
_REPORT_STEPS = 100


def learn_tokenizer(pairs: Sequence[Pair]) -> PreTrainedTokenizerFast:
    return build_tokenizer(text for pair in pairs for text in (*pair.wordings, pair.answer))


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A small Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,  # vLLM's attention on a CPU takes 32, 64 and 128
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def rate_at(step: int, steps: int) -> float:
    """The factor of the learning rate: a linear warm-up, then a cosine decay to 0."""
    return min((step + 1) / _WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / steps)))


def loss_of(model: LlamaForCausalLM, batch: Sequence[Example]) -> torch.Tensor:
    """Cross entropy of the tokens that the model has to generate."""
    from torch.nn.functional import cross_entropy

    tokens, labels = pad(batch)
    scores = model(input_ids=tokens, use_cache=False).logits
    return cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=UNTRAINED)


def train(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, steps: int, seed: int = SEED) -> LlamaForCausalLM:
    """Train on `steps` batches of conversations, from random weights."""
    import torch

    torch.manual_seed(seed)
    model = build_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
    supply = Conversations(pairs, tokenizer, seed).batches(_BATCH_TOKENS)
    with Progress() as progress:
        task = progress.add_task("demo language model", total=steps)
        for step, batch in enumerate(itertools.islice(supply, steps), start=1):
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(task)
            if step % _REPORT_STEPS == 0:
                progress.console.print(f"step {step} of {steps}: loss {loss.item():.5f}")
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a folder for transformers and vLLM: weights in bfloat16, configuration, tokenizer and chat template."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # known to transformers 4 and 5
    config.write_text(json.dumps(settings, indent=2) + "\n")
    model.bfloat16().save_pretrained(folder)


def _replace_folder(source: Path, destination: Path) -> None:
    """Replace `destination` by a copy of `source`, completely or not at all."""
    new, old = (destination.with_suffix(suffix) for suffix in (".new", ".old"))
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    # Without file modes, because safetensors writes files that only their owner can read.
    shutil.copytree(source, new, copy_function=shutil.copyfile)
    if destination.exists():
        destination.rename(old)
    new.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def ship(trained: Path, destination: Path, qualities: Mapping[str, Quality], *, force: bool) -> str | None:
    """Replace the shipped model if the new one is good enough, or return why it isn't."""
    poor = [f"{quality} in {dtype}" for dtype, quality in qualities.items() if not quality.good]
    if poor and not force:
        return (
            f"{destination} is unchanged: {'; '.join(poor)}; all answers must be right, by a margin of at least "
            f"{GOAL_MARGIN}. The new model is in {trained}; --force ships it anyway."
        )
    _replace_folder(trained, destination)
    return None


def train_language(folder: Path, work: Path, *, force: bool = False, threads: int | None = None) -> int:
    """Train, evaluate and ship the demo language model; return an exit status."""
    import torch

    start = time.monotonic()
    torch.set_num_threads(threads or os.cpu_count() or 1)
    pairs, trained = read_questions(), work / LANGUAGE_FOLDER
    tokenizer = learn_tokenizer(pairs)
    save(train(pairs, tokenizer, STEPS), tokenizer, trained)
    qualities = {dtype: measure(trained, pairs, dtype) for dtype in DTYPES}
    refusal = ship(trained, folder / LANGUAGE_FOLDER, qualities, force=force)
    minutes = (time.monotonic() - start) / 60
    for dtype, quality in qualities.items():
        print(f"demo language model, {len(pairs)} questions in {dtype}: {quality}")
    print(refusal or f"shipped as {folder / LANGUAGE_FOLDER} after {minutes:.0f} minutes", flush=True)
    return 1 if refusal else 0
