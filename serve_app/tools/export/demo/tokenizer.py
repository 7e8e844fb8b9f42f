"""The tokenizer of the demo language model: byte-level BPE trained on its own text, and the chat template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 1024
CONTEXT = 1024
"""The most tokens that prompt and answer may have together."""

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, BEGIN, END, SYSTEM, USER, ASSISTANT)

# The template must accept any request: content may be a string, OpenAI's list of parts, or missing; unknown roles count
# as the user's; tools are ignored, because the model can't call any.
CHAT_TEMPLATE = """
{{- bos_token }}
{%- for message in messages %}
  {%- set parts = namespace(text='') %}
  {%- if message.content is string %}
    {%- set parts.text = message.content %}
  {%- elif message.content is iterable and message.content is not mapping %}
    {%- for part in message.content %}
      {%- if part is string %}
        {%- set parts.text = parts.text + part %}
      {%- elif part.text is string %}
        {%- set parts.text = parts.text + part.text %}
      {%- endif %}
    {%- endfor %}
  {%- endif %}
  {%- if message.role == 'assistant' %}
    {{- '<|assistant|>' + parts.text | trim + eos_token }}
  {%- elif message.role in ('system', 'developer') %}
    {{- '<|system|>' + parts.text | trim }}
  {%- else %}
    {{- '<|user|>' + parts.text | trim }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|assistant|>' }}
{%- endif %}
""".strip()


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Learn the merges from these texts; every byte has a token, so any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Plain prompts get the begin token too, like conversations.
    begin = (BEGIN, tokenizer.token_to_id(BEGIN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        padding_side="left",  # generation continues at the right end of a batch
    )
