"""What users do, as Locust asks for it: pictures over REST and over KServe v2, and chats with token metrics."""

import json
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, HttpUser, User, between, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import RescheduleTask

from serve_app.clients.pictures import pictures_in
from serve_app.errors import InvalidRequestError
from serve_app.tools.load.requests import Request, chat_request, kserve_request, require_choice

KINDS = ("rest", "kserve", "chat")
HOST = "http://localhost:8000"  # unless --host says otherwise
PROJECT_PICTURE = Path(__file__).parents[3] / "docs" / "shapes.jpg"


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser) -> None:
    """Each may stand in the environment too, under the name that is given."""
    add = parser.add_argument_group("serve_app").add_argument
    add("--what", default="rest", env_var="WHAT", help=f"what users do: {', '.join(KINDS)}, or several with commas")
    add("--pictures", default=str(PROJECT_PICTURE), env_var="IMAGES_PATH", help="a picture, or a folder of them")
    add("--track", default="nano", env_var="TRACK", help="for rest: what stands behind /predict/, or a whole path")
    add("--model", default="yolo_nano_gpu_e2e", env_var="MODEL", help="for kserve: takes pictures, or squares of 640")
    add("--chat-model", default="demo-llm", env_var="CHAT_MODEL", help="for chat")
    add("--prompt", default="What is a replica?", env_var="PROMPT", help="for chat")
    add("--max-tokens", type=int, default=64, env_var="MAX_TOKENS", help="for chat")
    add("--pause", type=float, default=0.0, env_var="PAUSE", help="seconds that a user rests after each answer")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Reads the pictures once, and leaves only the users that were asked for."""
    if environment.parsed_options is not None:
        try:
            _prepare(environment, environment.parsed_options)
        except InvalidRequestError as problem:
            sys.exit(f"error: {problem}")


def _prepare(environment: Environment, options: Any) -> None:
    kinds = require_choice(options.what, KINDS)
    classes: dict[str, type[User]] = {"rest": RestUser, "kserve": KserveUser, "chat": ChatUser}
    environment.user_classes = [classes[kind] for kind in kinds]
    pictures = pictures_in(Path(options.pictures)) if {"rest", "kserve"} & set(kinds) else []
    path = options.track if options.track.startswith("/") else f"/predict/{options.track}"
    RestUser.requests = [(path, picture, {}) for picture in pictures]
    if "kserve" in kinds:
        KserveUser.requests = [kserve_request(options.model, picture) for picture in pictures]
    ChatUser.requests = [chat_request(options.chat_model, options.prompt, options.max_tokens)]
    pause = between(options.pause / 2, options.pause * 1.5) if options.pause else constant(0)
    for user in environment.user_classes:
        user.wait_time = pause
    gevent.get_hub().loop.update_now()  # its clock stood still meanwhile, and --run-time would end so much earlier


class _Prepared:
    """Sends what was prepared, in turn."""

    requests: ClassVar[list[Request]] = []
    numbers = count()

    def next_request(self) -> tuple[str, Any, dict[str, str]]:
        return self.requests[next(self.numbers) % len(self.requests)]


class RestUser(_Prepared, FastHttpUser):
    host = HOST

    @task
    def detect(self) -> None:
        path, body, headers = self.next_request()
        self.client.post(path, data=body, headers=headers, name=path)


class KserveUser(_Prepared, FastHttpUser):
    host = HOST

    @task
    def infer(self) -> None:
        path, body, headers = self.next_request()
        self.client.post(path, data=body, headers=headers, name=path)


class ChatUser(_Prepared, HttpUser):
    """Beside the whole answer's time: to the first token, and between tokens. Locust's fast client reads no lines."""

    host = HOST

    @task
    def chat(self) -> None:
        path, body, headers = self.next_request()
        began = time.perf_counter()
        with self.client.post(path, data=body, headers=headers, name=path, stream=True, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                raise RescheduleTask
            moments = [time.perf_counter() for piece in self._pieces(answer) if piece]
            answer.request_meta["response_time"] = (time.perf_counter() - began) * 1e3  # Locust's own ends at the head
            if not moments:
                answer.failure("no token came")
                raise RescheduleTask
        self._tell("first token", (moments[0] - began) * 1e3, len(moments))
        if len(moments) > 1:
            self._tell("between tokens", (moments[-1] - moments[0]) / (len(moments) - 1) * 1e3, len(moments))

    def _pieces(self, answer: Any) -> Any:
        for line in answer.iter_lines():
            text = line.decode() if isinstance(line, bytes) else line
            if text.startswith("data: {"):
                document = json.loads(text.removeprefix("data: "))
                if "error" in document:
                    answer.failure(document["error"]["message"])
                    return
                yield document["choices"][0]["delta"].get("content")

    def _tell(self, name: str, ms: float, tokens: int) -> None:
        self.environment.events.request.fire(
            request_type="TOKEN", name=name, response_time=ms, response_length=tokens, exception=None, context={}
        )
