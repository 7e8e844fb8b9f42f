"""The tokenizer of the demo language model encodes any text, and its chat template accepts any request."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.tools.export.demo.conversations import read_questions
from serve_app.tools.export.demo.language import learn_tokenizer
from serve_app.tools.export.demo.tokenizer import SPECIAL_TOKENS, VOCABULARY

TOKENIZER: Any = learn_tokenizer(read_questions())
TEXT = "What is serve_app?"
QUESTION = {"role": "user", "content": TEXT}


def rendered(*conversation: dict[str, Any], **options: Any) -> str:
    return TOKENIZER.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=True, **options)


@given(st.text())
@example("👩🏽‍🚀 🦙 héllo wörld 漢字かな")
@example("a  b\t\r\n\n c it 's , . ! x<|end|>y \0\x7f ")
def test_any_text_is_decoded_as_it_was_encoded(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)) == text


def test_the_vocabulary_has_the_models_size_and_training_is_reproducible() -> None:
    assert len(TOKENIZER) == VOCABULARY
    assert TOKENIZER.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    again: Any = learn_tokenizer(read_questions())
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


def test_plain_prompts_and_conversations_are_rendered_with_the_special_tokens() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("hello")) == "<|begin|>hello"
    assert rendered(QUESTION) == "<|begin|><|user|>What is serve_app?<|assistant|>"
    conversation = [{"role": "system", "content": "Be kind."}, QUESTION, {"role": "assistant", "content": "It."}]
    assert rendered(*conversation, QUESTION) == (
        "<|begin|><|system|>Be kind.<|user|>What is serve_app?<|assistant|>It.<|end|>"
        "<|user|>What is serve_app?<|assistant|>"
    )


def test_the_template_accepts_content_in_parts_unknown_roles_missing_content_and_tools() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    image = {"type": "image_url", "image_url": {"url": "x"}}
    for content in (
        [{"type": "text", "text": TEXT}],
        [{"type": "text", "text": "What is "}, {"type": "text", "text": "serve_app?"}],
        [image, {"type": "text", "text": TEXT}],
        [TEXT],
        f" {TEXT}\n",
    ):
        assert rendered({"role": "user", "content": content}) == rendered(QUESTION), content
    for role in ("tool", "function", "critic"):
        assert rendered({"role": role, "content": TEXT}) == rendered(QUESTION), role
    assert rendered(QUESTION, tools=[tool]) == rendered(QUESTION)
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    empties: list[dict[str, Any]] = [{}, {"content": None}, {"content": []}, {"content": ""}]
    for empty in empties:
        assert rendered({"role": "user", **empty}) == "<|begin|><|user|><|assistant|>", empty
        called = rendered(QUESTION, {"role": "assistant", **empty, "tool_calls": [call]})
        assert called.endswith("serve_app?<|assistant|><|end|><|assistant|>"), empty
