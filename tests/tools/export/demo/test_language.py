"""The demo language model: the one that ships answers word for word, and newly trained ones ship when they do too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo import language
from serve_app.tools.export.demo.conversations import Conversations, read_questions
from serve_app.tools.export.demo.evaluation import (
    DTYPES,
    GOAL_MARGIN,
    Quality,
    chat_tasks,
    evaluate,
    load,
    margin,
    plain_tasks,
)
from serve_app.tools.export.demo.language import LANGUAGE_FOLDER, learn_tokenizer, loss_of, ship, train, train_language
from serve_app.tools.export.demo.tokenizer import CHAT_TEMPLATE

WEIGHTS = PROJECT_ROOT / "model_repository" / "weights"
SHIPPED = WEIGHTS / LANGUAGE_FOLDER
PAIRS = read_questions()
GOOD, WRONG, NARROW = Quality(9, 9, 5.0), Quality(9, 8, -0.5), Quality(9, 9, 0.1)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of so small a model wait for each other more than they compute, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# The model that ships


def test_the_right_tokens_have_a_clear_lead_to_plain_prompts_and_in_chats() -> None:
    """A right token that leads everywhere is a right answer word for word. A sample; `make slow` asks all."""
    model, tokenizer = load(SHIPPED, "float32")
    tasks = [*plain_tasks(PAIRS, tokenizer), *chat_tasks(PAIRS, tokenizer)][::16]
    assert len(tasks) > 50
    tasks.sort(key=lambda task: len(task.prompt) + len(task.answer))
    batches = [tasks[start : start + 16] for start in range(0, len(tasks), 16)]
    assert min(margin(model, tokenizer, batch) for batch in batches) >= GOAL_MARGIN


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_form_of_every_question_is_answered_word_for_word(dtype: str) -> None:
    model, tokenizer = load(SHIPPED, dtype)
    quality = evaluate(model, tokenizer, [*plain_tasks(PAIRS, tokenizer), *chat_tasks(PAIRS, tokenizer)])
    assert quality.good, str(quality)


def test_answers_are_generated_word_for_word_and_one_that_differs_in_one_letter_or_in_length_counts_as_wrong() -> None:
    model, tokenizer = load(SHIPPED, "float32")
    pairs = sorted(PAIRS, key=lambda pair: len(pair.answer))[:4]
    right = [*plain_tasks(pairs, tokenizer), *chat_tasks(pairs, tokenizer)]
    assert evaluate(model, tokenizer, right).good
    task = right[0]
    wrong = task.answer[:-2] + "~" + task.answer[-1], task.answer[:-1], f"{task.answer} It."
    quality = evaluate(model, tokenizer, [task, *(replace(task, answer=answer) for answer in wrong)])
    assert (quality.right, quality.asked) == (1, 4)
    assert quality.margin < 0
    assert not quality.good


def test_the_folder_holds_only_what_vllm_reads_without_paths_and_is_small() -> None:
    files = {file.name for file in SHIPPED.iterdir()}
    configs = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert files == configs | {"chat_template.jinja", "model.safetensors"}
    for name in configs - {"tokenizer.json"}:
        values = [value for value in json.loads((SHIPPED / name).read_text()).values() if isinstance(value, str)]
        assert not [value for value in values if "/" in value], name
    weights = (SHIPPED / "model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 6_300_000
    shipped = [*WEIGHTS.glob("demo-*.pt"), *SHIPPED.iterdir()]
    assert len(shipped) == 7
    assert sum(file.stat().st_size for file in shipped) <= 12_000_000


def test_vllm_can_run_the_model_on_a_cpu_and_split_it_over_two_processes() -> None:
    model, tokenizer = load(SHIPPED, "float32")
    config = json.loads((SHIPPED / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["head_dim"], config["max_position_embeddings"], config["num_key_value_heads"]) == (64, 1024, 2)
    assert 2_000_000 <= model.num_parameters() <= 3_000_000
    assert tokenizer.get_vocab() == learn_tokenizer(PAIRS).get_vocab()
    assert tokenizer.chat_template == CHAT_TEMPLATE


# Training


def test_a_few_steps_lower_the_loss_and_the_same_seed_reproduces_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_BATCH_TOKENS", 256)
    tokenizer = learn_tokenizer(PAIRS)
    batch = next(Conversations(PAIRS, tokenizer, 99).batches(512))
    losses = {}
    for name, steps, seed in (("one", 1, 5), ("some", 6, 5), ("again", 6, 5), ("other", 6, 6)):
        model = train(PAIRS, tokenizer, steps, seed)
        with torch.no_grad():
            losses[name] = loss_of(model, batch).item()
    assert losses["some"] < losses["one"] - 0.1
    assert losses["again"] == losses["some"] != losses["other"]


def test_an_untrained_model_ships_only_when_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(language, "STEPS", 1)
    monkeypatch.setattr(language, "_BATCH_TOKENS", 256)
    monkeypatch.setattr(language, "read_questions", lambda: sorted(PAIRS, key=lambda pair: len(pair.answer))[:3])
    shipped = tmp_path / "weights" / LANGUAGE_FOLDER
    shipped.mkdir(parents=True)
    (shipped / "model.safetensors").write_text("old")

    assert train_language(tmp_path / "weights", tmp_path / "work", threads=1) == 1
    assert contents(shipped) == {"model.safetensors": "old"}
    output = capsys.readouterr().out
    assert "3 questions in bfloat16: 0 of 33 answers right" in output
    assert "3 questions in float32: 0 of 33 answers right" in output
    assert f"{shipped} is unchanged" in output

    monkeypatch.setattr(language, "measure", lambda *_: WRONG)
    assert train_language(tmp_path / "weights", tmp_path / "work", force=True, threads=1) == 0
    assert load(shipped, "float32")[0].num_parameters() > 0


# Shipping


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "new"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("new")
    (folder / "model.safetensors").chmod(0o600)
    return folder


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    folder = tmp_path / "weights" / LANGUAGE_FOLDER
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("old")
    (folder / "model.bin").write_text("older")
    return folder


def test_a_good_model_replaces_the_old_folder_and_what_an_interrupted_run_left(trained: Path, shipped: Path) -> None:
    for suffix in (".new", ".old"):
        (shipped.with_suffix(suffix) / "half").mkdir(parents=True)
    assert ship(trained, shipped, {"bfloat16": GOOD, "float32": GOOD}, force=False) is None
    assert contents(shipped) == {"model.safetensors": "new"}
    assert list(shipped.parent.iterdir()) == [shipped]
    assert (shipped / "model.safetensors").stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("poor", [WRONG, NARROW])
def test_a_model_that_is_poor_in_one_precision_is_refused_unless_forced(
    poor: Quality, trained: Path, shipped: Path
) -> None:
    qualities = {"bfloat16": poor, "float32": GOOD}
    assert ship(trained, shipped, qualities, force=False) == (
        f"{shipped} is unchanged: {poor} in bfloat16; all answers must be right, by a margin of at least "
        f"{GOAL_MARGIN}. The new model is in {trained}; --force ships it anyway."
    )
    assert contents(shipped) == {"model.safetensors": "old", "model.bin": "older"}
    assert ship(trained, shipped, qualities, force=True) is None
    assert contents(shipped) == {"model.safetensors": "new"}
