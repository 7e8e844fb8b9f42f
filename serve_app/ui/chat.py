"""The tab for language models: a conversation that is written as it comes, with the speed of its tokens."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import gradio as gr
import openai

from serve_app.clients.errors import error_of, unreachable
from serve_app.errors import ServeAppError
from serve_app.ui.markup import failure, figures, note
from serve_app.ui.service import Service

QUESTIONS = ("What is serve_app?", "Which tracks are there?", "What happens to a picture?", "What is vLLM?")
SHOW_INTERVAL_S = 0.05  # the page is told in steps, or telling it would slow what is measured
TIMEOUT_S = 300.0
Message = dict[str, Any]


def as_text(_talk: gr.Chatbot, payload: Any) -> list[Message]:
    """Texts alone: Gradio would make files and components of what a visitor sends as messages."""
    texts = [(one.role, "".join(getattr(part, "text", "") for part in one.content)) for one in payload.root]
    return [{"role": role, "content": text} for role, text in texts]


gr.Chatbot.preprocess = as_text


@dataclass(slots=True)
class Speed:
    """When tokens came, from the moment the question was sent."""

    asked_s: float
    first_s: float | None = None
    last_s: float | None = None
    tokens: int = 0
    finish: str | None = None  # why no more came

    def note_token(self) -> None:
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        self.tokens += 1

    def told(self) -> str:
        if self.first_s is None or self.last_s is None:
            return note("Waiting for the first token…")
        wrote_s = self.last_s - self.first_s
        rate = f"{(self.tokens - 1) / wrote_s:.1f}" if wrote_s > 0 and self.tokens > 1 else "–"
        pairs = [
            ("tokens/s", rate),
            ("ms to the first token", f"{(self.first_s - self.asked_s) * 1e3:.0f}"),
            ("tokens", str(self.tokens)),
            ("s in all", f"{self.last_s - self.asked_s:.2f}"),
        ]
        cut = note("The answer was cut at the limit of new tokens.") if self.finish == "length" else ""
        return figures(pairs) + cut


class ChatTab:
    """Its components, and what happens between them; the conversation itself lives in the browser, or Gradio would
    hold a connection to each open page."""

    def __init__(self, service: Service) -> None:
        self._service = service
        # once: making one takes a fifth of a second, which would count as the model's
        self._client = openai.AsyncOpenAI(
            base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT_S
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self._model = gr.Dropdown([], label="Model", elem_id="model", allow_custom_value=True)
                self._temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature")
                self._most = gr.Slider(1, 1024, 256, step=1, label="Most new tokens")
                self._speed = gr.HTML(note("The speed of an answer is shown here."), elem_id="speed")
                clear = gr.Button("New conversation", size="sm")
            with gr.Column(scale=3, min_width=400):
                self._talk = gr.Chatbot(
                    label="Conversation", height=430, buttons=["copy"], feedback_options=None, elem_id="talk",
                    placeholder="Ask one of the models something.",
                )  # fmt: skip
                with gr.Row(equal_height=True):
                    self._question = gr.Textbox(
                        placeholder="Ask something…", show_label=False, container=False, scale=8, elem_id="question"
                    )
                    ask = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
                    stop = gr.Button("Stop", scale=1, min_width=90, elem_id="stop")
                gr.Examples([[text] for text in QUESTIONS], self._question, label="What demo-llm was taught")
        chosen = [self._model, self._temperature, self._most]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        answering = [
            begin(
                take, [self._question, self._talk], [self._question, self._talk], **quiet
            ).then(self.answer, [self._talk, *chosen], [self._talk, self._speed], **quiet)
            for begin in (ask.click, self._question.submit)
        ]  # fmt: skip
        stop.click(None, cancels=answering)
        clear.click(lambda: ([], ""), None, [self._talk, self._speed], cancels=answering, **quiet)
        self.updated = self._model

    async def update(self) -> gr.Dropdown:
        """The models that are served now."""
        try:
            names = list(await self._service.languages())
        except ServeAppError:
            return gr.Dropdown(choices=[], value=None, info="The service doesn't answer: reload this page")
        info = "" if names else "This service has no language models"
        return gr.Dropdown(choices=names, value=names[0] if names else None, info=info)

    async def answer(
        self, talk: list[Message], model: str | None, temperature: float, most: float
    ) -> AsyncIterator[tuple[list[Message], str]]:
        """The talk as it grows, and how fast it does."""
        if not talk or talk[-1]["role"] != "user":
            return  # an empty question
        if not model:
            yield talk, note("There is no model to ask: choose one.")
            return
        speed = Speed(time.perf_counter())
        yield talk, speed.told()
        asked = {"model": model, "temperature": temperature, "max_tokens": int(most)}
        text, shown_s = "", 0.0
        try:
            async for piece in self._pieces(asked | {"messages": plain(talk)}, speed):
                text += piece
                if time.perf_counter() - shown_s >= SHOW_INTERVAL_S:
                    shown_s = time.perf_counter()
                    yield [*talk, said(text)], speed.told()
        except ServeAppError as problem:
            yield [*talk, said(text)] if text else talk, failure(problem)
            return
        yield [*talk, said(text)], speed.told()

    async def _pieces(self, asked: Message, speed: Speed) -> AsyncIterator[str]:
        """What is written; `speed` learns when each token came."""
        options: Message = {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with await self._client.chat.completions.create(**asked, **options) as stream:
                async for chunk in stream:
                    if chunk.usage:
                        speed.tokens = chunk.usage.completion_tokens
                    for choice in chunk.choices:
                        speed.finish = choice.finish_reason or speed.finish
                        if choice.delta.content:
                            speed.note_token()
                            yield choice.delta.content
        except openai.APIConnectionError as problem:
            raise unreachable(self._service.url, problem) from None
        except openai.APIStatusError as problem:
            raise error_of(problem.status_code, _message_of(problem)) from None
        except openai.APIError as problem:  # an event in the middle of a stream
            raise ServeAppError(problem.message) from None


def take(question: str, talk: list[Message]) -> tuple[str, list[Message]]:
    """The question moves from its field into the conversation."""
    question = question.strip()
    return "", [*talk, {"role": "user", "content": question}] if question else talk


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def plain(talk: list[Message]) -> list[Message]:
    """Without questions that nothing came of: some models' templates refuse two in a row."""
    pairs = zip_longest(talk, talk[1:], fillvalue={"role": ""})
    return [one for one, following in pairs if one["role"] != "user" or following["role"] != "user"]


def _message_of(problem: openai.APIStatusError) -> str:
    body = problem.body
    return str(body["message"]) if isinstance(body, dict) and "message" in body else problem.message
