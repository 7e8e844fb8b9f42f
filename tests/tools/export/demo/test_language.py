"""The demo language model: how it is trained, when it ships, and that what ships says its answers word for word."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serve_app.tools.export.demo import language
from serve_app.tools.export.demo.conversations import Conversations
from serve_app.tools.export.demo.examination import (
    DTYPES,
    GOAL_MARGIN,
    Quality,
    chat_tasks,
    examine,
    load,
    margin,
    plain_tasks,
)
from serve_app.tools.export.demo.language import LANGUAGE_FOLDER, learn_tokenizer, loss_of, ship, train, train_language
from serve_app.tools.export.demo.questions import read_questions
from serve_app.tools.export.demo.tokenizer import CHAT_TEMPLATE

WEIGHTS = Path(__file__).resolve().parents[4] / "model_repository" / "weights"
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


# What ships


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_answer_comes_word_for_word_to_a_plain_prompt_and_in_a_chat(dtype: str) -> None:
    model, tokenizer = load(SHIPPED, dtype)
    wanted = {f"<|begin|>{pair.question}" for pair in PAIRS}
    wanted |= {f"<|begin|><|user|>{pair.question}<|assistant|>" for pair in PAIRS}
    tasks = [*plain_tasks(PAIRS, tokenizer), *chat_tasks(PAIRS, tokenizer)]
    tasks = [task for task in tasks if tokenizer.decode(task.prompt) in wanted]
    quality = examine(model, tokenizer, tasks)
    assert quality.right == quality.asked == 2 * len(PAIRS), str(quality)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_right_token_leads_clearly_in_every_form_of_every_question(dtype: str) -> None:
    model, tokenizer = load(SHIPPED, dtype)
    tasks = [*plain_tasks(PAIRS, tokenizer), *chat_tasks(PAIRS, tokenizer)]
    tasks.sort(key=lambda task: len(task.prompt) + len(task.answer))
    batches = [tasks[start : start + 64] for start in range(0, len(tasks), 64)]
    assert min(margin(model, tokenizer, batch) for batch in batches) >= GOAL_MARGIN


def test_an_answer_that_differs_in_one_letter_or_goes_on_is_counted_as_wrong() -> None:
    model, tokenizer = load(SHIPPED, "float32")
    right = list(itertools.islice(plain_tasks(PAIRS, tokenizer), 4))
    assert examine(model, tokenizer, right).good
    for spoilt in (right[1].answer.replace("is", "as", 1), right[1].answer[:-1], right[1].answer + " It is."):
        quality = examine(model, tokenizer, [right[0], replace(right[1], answer=spoilt), *right[2:]])
        assert (quality.right, quality.asked) == (3, 4), spoilt
        assert quality.margin < 0, spoilt
        assert not quality.good


def test_the_folder_holds_what_vllm_reads_and_nothing_of_where_it_was_made() -> None:
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


def test_all_weights_together_are_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 6_300_000
    shipped = [*WEIGHTS.glob("demo-*.pt"), *SHIPPED.iterdir()]
    assert len(shipped) == 7
    assert sum(file.stat().st_size for file in shipped) <= 12_000_000


def test_the_model_is_one_that_vllm_computes_on_a_cpu_and_can_split() -> None:
    model, _ = load(SHIPPED, "float32")
    config = json.loads((SHIPPED / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["head_dim"], config["max_position_embeddings"]) == (64, 1024)
    assert config["num_key_value_heads"] == 2
    assert 2_000_000 <= model.num_parameters() <= 3_000_000


def test_the_tokenizer_that_ships_is_the_one_of_these_questions() -> None:
    _, tokenizer = load(SHIPPED, "float32")
    assert tokenizer.get_vocab() == learn_tokenizer(PAIRS).get_vocab()
    assert tokenizer.chat_template == CHAT_TEMPLATE


# How it is trained


def test_a_few_steps_lower_the_loss_and_the_same_seed_repeats_them() -> None:
    tokenizer = learn_tokenizer(PAIRS)
    batch = next(Conversations(PAIRS, tokenizer, 99).batches(1024))
    losses = {}
    for name, steps, seed in (("one", 1, 5), ("some", 8, 5), ("again", 8, 5), ("other", 8, 6)):
        model = train(PAIRS, tokenizer, steps, seed)
        with torch.no_grad():
            losses[name] = loss_of(model, batch).item()
    assert losses["some"] < losses["one"] - 0.1
    assert losses["again"] == losses["some"] != losses["other"]


def test_a_model_that_learnt_nothing_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(language, "STEPS", 1)
    monkeypatch.setattr(language, "read_questions", lambda: PAIRS[:3])
    there = tmp_path / "weights" / LANGUAGE_FOLDER / "model.safetensors"
    there.parent.mkdir(parents=True)
    there.write_text("old")

    assert train_language(tmp_path / "weights", tmp_path / "work", threads=1) == 1
    assert contents(there.parent) == {"model.safetensors": "old"}
    told = capsys.readouterr().out
    assert "3 questions in bfloat16: 0 of 33 answers right" in told
    assert "3 questions in float32: 0 of 33 answers right" in told
    assert f"{there.parent} is not touched" in told

    assert train_language(tmp_path / "weights", tmp_path / "work", force=True, threads=1) == 0
    assert load(there.parent, "float32")[0].num_parameters() > 0


# When it ships


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


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_a_good_model_takes_the_whole_place_of_an_old_one(trained: Path, shipped: Path) -> None:
    assert ship(trained, shipped, {"bfloat16": GOOD, "float32": GOOD}, force=False) is None
    assert contents(shipped) == {"model.safetensors": "new"}
    assert list(shipped.parent.iterdir()) == [shipped]
    assert (shipped / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_what_a_broken_off_run_left_is_no_obstacle(trained: Path, shipped: Path) -> None:
    for suffix in (".arriving", ".leaving"):
        (shipped.with_suffix(suffix) / "half").mkdir(parents=True)
    assert ship(trained, shipped, {"float32": GOOD}, force=False) is None
    assert list(shipped.parent.iterdir()) == [shipped]


@pytest.mark.parametrize("poor", [WRONG, NARROW])
def test_a_model_that_is_poor_in_one_precision_is_refused_with_the_way_out(
    poor: Quality, trained: Path, shipped: Path
) -> None:
    refusal = ship(trained, shipped, {"bfloat16": poor, "float32": GOOD}, force=False)
    assert contents(shipped) == {"model.safetensors": "old", "model.bin": "older"}
    assert refusal is not None
    for part in (str(shipped), f"{poor} in bfloat16", str(GOAL_MARGIN), str(trained), "--force"):
        assert part in refusal
    assert "float32" not in refusal


def test_force_ships_a_poor_model(trained: Path, shipped: Path) -> None:
    assert ship(trained, shipped, {"float32": WRONG}, force=True) is None
    assert contents(shipped) == {"model.safetensors": "new"}
