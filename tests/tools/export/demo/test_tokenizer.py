"""The tokenizer of the demo language model: it says every text, and its template takes every request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.tools.export.demo.language import learn_tokenizer
from serve_app.tools.export.demo.questions import read_questions
from serve_app.tools.export.demo.tokenizer import SPECIAL_TOKENS, VOCABULARY

TOKENIZER: Any = learn_tokenizer(read_questions())
QUESTION = {"role": "user", "content": "What is serve_app?"}


def rendered(*conversation: dict[str, Any], **options: Any) -> str:
    return TOKENIZER.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=True, **options)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    "text", ["👩🏽‍🚀 🦙", "héllo wörld", "漢字かな", "a  b\t\r\n\n c ", "it 's , . !", "x<|end|>y", "\0\x7f"]
)
def test_what_tokenizers_like_to_lose_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_is_what_the_model_has_room_for() -> None:
    assert len(TOKENIZER) == VOCABULARY
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))


def test_the_same_text_gives_the_same_tokenizer() -> None:
    again: Any = learn_tokenizer(read_questions())
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_a_plain_prompt_begins_by_itself_and_a_chat_only_once() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("hello")) == "<|begin|>hello"
    assert rendered(QUESTION) == "<|begin|><|user|>What is serve_app?<|assistant|>"


def test_a_conversation_has_its_system_message_and_ends_its_answers() -> None:
    conversation = [{"role": "system", "content": "Be kind."}, QUESTION, {"role": "assistant", "content": "It."}]
    assert rendered(*conversation, QUESTION) == (
        "<|begin|><|system|>Be kind.<|user|>What is serve_app?<|assistant|>It.<|end|>"
        "<|user|>What is serve_app?<|assistant|>"
    )


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "What is serve_app?"}],
        [{"type": "text", "text": "What is "}, {"type": "text", "text": "serve_app?"}],
        [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "What is serve_app?"}],
        ["What is serve_app?"],
        " What is serve_app?\n",
    ],
)
def test_content_may_come_in_parts_or_with_space_around_it(content: Any) -> None:
    assert rendered({"role": "user", "content": content}) == rendered(QUESTION)


@pytest.mark.parametrize("role", ["user", "tool", "function", "critic"])
def test_a_role_that_is_not_known_is_the_user(role: str) -> None:
    assert rendered({"role": role, "content": "What is serve_app?"}) == rendered(QUESTION)


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": []}, {"content": ""}])
def test_a_message_may_say_nothing(content: dict[str, Any]) -> None:
    assert rendered({"role": "user", **content}) == "<|begin|><|user|><|assistant|>"
    called = {"role": "assistant", **content, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
    assert rendered(QUESTION, called).endswith("serve_app?<|assistant|><|end|><|assistant|>")


def test_tools_are_passed_over() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    assert rendered(QUESTION, tools=[tool]) == rendered(QUESTION)
