"""The Chat tab: a conversation with a language model, streamed, with the speed of its tokens."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import gradio as gr
import openai

from serve_app.clients.errors import error_of, unreachable
from serve_app.errors import ServeAppError
from serve_app.keys.headers import key_headers
from serve_app.ui.html import failure, figures, note
from serve_app.ui.service import Service

QUESTIONS = ("What is serve_app?", "Which tracks are there?", "What happens to a picture?", "What is vLLM?")
UPDATE_INTERVAL_S = 0.05  # between updates of the page, which would slow the stream that is measured
TIMEOUT_S = 300.0
Message = dict[str, Any]


def text_only(_chatbot: gr.Chatbot, payload: Any) -> list[Message]:
    """Messages as text: Gradio would open files and build components that a visitor's message names."""
    texts = [(one.role, "".join(getattr(part, "text", "") for part in one.content)) for one in payload.root]
    return [{"role": role, "content": text} for role, text in texts]


gr.Chatbot.preprocess = text_only


@dataclass(slots=True)
class Speed:
    """Times of one answer's tokens."""

    asked_s: float
    first_s: float | None = None
    last_s: float | None = None
    tokens: int = 0
    finish_reason: str | None = None

    def count_token(self) -> None:
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        self.tokens += 1

    def to_html(self) -> str:
        if self.first_s is None or self.last_s is None:
            return note("Waiting for the first token…")
        streamed_s = self.last_s - self.first_s
        rate = f"{(self.tokens - 1) / streamed_s:.1f}" if streamed_s > 0 and self.tokens > 1 else "–"
        pairs = [
            ("tokens/s", rate),
            ("ms to the first token", f"{(self.first_s - self.asked_s) * 1e3:.0f}"),
            ("tokens", str(self.tokens)),
            ("s in total", f"{self.last_s - self.asked_s:.2f}"),
        ]
        cut = note("The answer was cut off at the maximum of new tokens.") if self.finish_reason == "length" else ""
        return figures(pairs) + cut


class ChatTab:
    """Components and events; the browser holds the conversation, as Gradio would hold a connection to each page."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # once: creating one takes 0.2 s, which would count as the model's time
        self._client = openai.AsyncOpenAI(
            base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT_S
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self._model = gr.Dropdown([], label="Model", elem_id="model", allow_custom_value=True)
                self._temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature")
                self._max_tokens = gr.Slider(1, 1024, 256, step=1, label="Maximum new tokens")
                self._speed = gr.HTML(note("The speed of the answer appears here."), elem_id="speed")
                clear = gr.Button("New conversation", size="sm")
            with gr.Column(scale=3, min_width=400):
                self._chatbot = gr.Chatbot(
                    label="Conversation", height=430, buttons=["copy"], feedback_options=None, elem_id="talk",
                    placeholder="Ask a language model a question.",
                )  # fmt: skip
                with gr.Row(equal_height=True):
                    self._question = gr.Textbox(
                        placeholder="Type a question…", show_label=False, container=False, scale=8, elem_id="question"
                    )
                    ask = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
                    stop = gr.Button("Stop", scale=1, min_width=90, elem_id="stop")
                gr.Examples(
                    [[text] for text in QUESTIONS], self._question, label="Questions that demo-llm was trained on"
                )
        options = [self._model, self._temperature, self._max_tokens]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        answering = [
            begin(
                add_question, [self._question, self._chatbot], [self._question, self._chatbot], **quiet
            ).then(self.answer, [self._chatbot, *options], [self._chatbot, self._speed], **quiet)
            for begin in (ask.click, self._question.submit)
        ]  # fmt: skip
        stop.click(None, cancels=answering)
        clear.click(lambda: ([], ""), None, [self._chatbot, self._speed], cancels=answering, **quiet)
        self.updated = self._model

    async def update(self, visitor: gr.Request | None = None) -> gr.Dropdown:
        """The models that can be chosen."""
        try:
            names = list(await self._service.seen_by(visitor).language_models())
        except ServeAppError:
            return gr.Dropdown(choices=[], value=None, info="The service doesn't answer; reload this page to try again")
        info = "" if names else "This service has no language models"
        return gr.Dropdown(choices=names, value=names[0] if names else None, info=info)

    async def answer(
        self,
        messages: list[Message],
        model: str | None,
        temperature: float,
        max_tokens: float,
        visitor: gr.Request | None = None,
    ) -> AsyncIterator[tuple[list[Message], str]]:
        """The conversation as the answer grows, and its speed."""
        if not messages or messages[-1]["role"] != "user":
            return  # the question was empty
        if not model:
            yield messages, note("Choose a model first.")
            return
        speed = Speed(time.perf_counter())
        yield messages, speed.to_html()
        request: Message = {"model": model, "temperature": temperature, "max_tokens": int(max_tokens)}
        text, updated_s = "", 0.0
        try:
            request |= {
                "messages": answered(messages),
                "extra_headers": key_headers(self._service.seen_by(visitor).key),
            }
            async for piece in self._stream(request, speed):
                text += piece
                if time.perf_counter() - updated_s >= UPDATE_INTERVAL_S:
                    updated_s = time.perf_counter()
                    yield [*messages, answer_message(text)], speed.to_html()
        except ServeAppError as error:
            yield [*messages, answer_message(text)] if text else messages, failure(error)
            return
        yield [*messages, answer_message(text)], speed.to_html()

    async def _stream(self, request: Message, speed: Speed) -> AsyncIterator[str]:
        """Pieces of the answer; each is counted in `speed`."""
        options: Message = {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with await self._client.chat.completions.create(**request, **options) as stream:
                async for chunk in stream:
                    if chunk.usage:
                        speed.tokens = chunk.usage.completion_tokens
                    for choice in chunk.choices:
                        speed.finish_reason = choice.finish_reason or speed.finish_reason
                        if choice.delta.content:
                            speed.count_token()
                            yield choice.delta.content
        except openai.APIConnectionError as error:
            raise unreachable(self._service.url, error) from None
        except openai.APIStatusError as error:
            raise error_of(error.status_code, _message_of(error)) from None
        except openai.APIError as error:  # an event in the stream
            raise ServeAppError(error.message) from None


def add_question(question: str, messages: list[Message]) -> tuple[str, list[Message]]:
    """Move the question from its field into the conversation."""
    question = question.strip()
    return "", [*messages, {"role": "user", "content": question}] if question else messages


def answer_message(text: str) -> Message:
    return {"role": "assistant", "content": text}


def answered(messages: list[Message]) -> list[Message]:
    """Without unanswered questions before the last: some chat templates refuse two user messages in a row."""
    pairs = zip_longest(messages, messages[1:], fillvalue={"role": ""})
    return [one for one, following in pairs if one["role"] != "user" or following["role"] != "user"]


def _message_of(error: openai.APIStatusError) -> str:
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else error.message
