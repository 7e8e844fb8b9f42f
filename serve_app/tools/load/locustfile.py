"""The Locust users: pictures over REST and over KServe v2, and chats with token metrics."""

import json
import socket
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent  # type: ignore[import-untyped]
from locust import FastHttpUser, HttpUser, User, between, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import RescheduleTask

from serve_app.clients.pictures import read_pictures
from serve_app.errors import InvalidRequestError, UnavailableError
from serve_app.keys.headers import key_headers
from serve_app.tools.arguments import api_key
from serve_app.tools.load.requests import Request, chat_request, kserve_request, require_choice

KINDS = ("rest", "kserve", "chat")
HOST = "http://localhost:8000"  # unless --host is given
CONNECT_TIMEOUT_S = 5.0
PROJECT_PICTURE = Path(__file__).parents[3] / "docs" / "shapes.jpg"


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser) -> None:
    """Each can also be set by the environment variable that is named."""
    add = parser.add_argument_group("serve_app").add_argument
    add("--what", default="rest", env_var="WHAT", help=f"kinds of users, separated by commas: {', '.join(KINDS)}")
    add("--pictures", default=str(PROJECT_PICTURE), env_var="IMAGES_PATH", help="a picture, or a folder of them")
    add("--track", default="nano", env_var="TRACK", help="for rest: the last part of /predict/{track}, or a path")
    add(
        "--model",
        default="yolo_nano_gpu_e2e",
        env_var="MODEL",
        help="for kserve: takes whole pictures or squares of 640 pixels",
    )
    add("--chat-model", default="demo-llm", env_var="CHAT_MODEL", help="for chat")
    add("--prompt", default="What is a replica?", env_var="PROMPT", help="for chat")
    add("--max-tokens", type=int, default=64, env_var="MAX_TOKENS", help="for chat")
    add("--pause", type=float, default=0.0, env_var="PAUSE", help="mean seconds between a user's requests")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Environment, **_: Any) -> None:
    """Build the requests once and keep the users that were chosen; a wrong option or a missing service ends the run."""
    options = environment.parsed_options
    if options is None:
        return
    try:
        _prepare(environment, options)
        if options.headless and not options.worker:  # on the web page the address can still be changed
            require_service(options.host or HOST)
    except (InvalidRequestError, UnavailableError) as problem:
        sys.exit(f"error: {problem}")


def require_service(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "localhost", port), CONNECT_TIMEOUT_S).close()
    except OSError as problem:
        hint = "start the service with `make serve`, or pass its address with --host"
        raise UnavailableError(f"{url} can't be reached: {problem}; {hint}") from None


def _prepare(environment: Environment, options: Any) -> None:
    kinds = require_choice(options.what, KINDS)
    classes: dict[str, type[User]] = {"rest": RestUser, "kserve": KserveUser, "chat": ChatUser}
    environment.user_classes = [classes[kind] for kind in kinds]
    pictures = read_pictures(Path(options.pictures)) if {"rest", "kserve"} & set(kinds) else []
    path = options.track if options.track.startswith("/") else f"/predict/{options.track}"
    RestUser.requests = [(path, picture, {}) for picture in pictures]
    if "kserve" in kinds:
        KserveUser.requests = [kserve_request(options.model, picture) for picture in pictures]
    ChatUser.requests = [chat_request(options.chat_model, options.prompt, options.max_tokens)]
    pause = between(options.pause / 2, options.pause * 1.5) if options.pause else constant(0)
    for user in environment.user_classes:
        user.wait_time = pause
    gevent.get_hub().loop.update_now()  # its clock stood still, which would shorten --run-time


class _Prepared:
    """Sends the prepared requests round robin."""

    requests: ClassVar[list[Request]] = []
    numbers = count()

    def next_request(self) -> tuple[str, Any, dict[str, str]]:
        path, body, headers = self.requests[next(self.numbers) % len(self.requests)]
        return path, body, headers | key_headers(api_key())


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
    """Also measures time to first token and between tokens. Uses HttpUser because FastHttpUser can't read lines."""

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
            answer.request_meta["response_time"] = (time.perf_counter() - began) * 1e3  # Locust's ends with the headers
            if not moments:
                answer.failure("no token received")
                raise RescheduleTask
        self._report("first token", (moments[0] - began) * 1e3, len(moments))
        if len(moments) > 1:
            self._report("between tokens", (moments[-1] - moments[0]) / (len(moments) - 1) * 1e3, len(moments))

    def _pieces(self, answer: Any) -> Any:
        for line in answer.iter_lines():
            text = line.decode() if isinstance(line, bytes) else line
            if text.startswith("data: {"):
                document = json.loads(text.removeprefix("data: "))
                if "error" in document:
                    answer.failure(document["error"]["message"])
                    return
                yield document["choices"][0]["delta"].get("content")

    def _report(self, name: str, ms: float, tokens: int) -> None:
        self.environment.events.request.fire(
            request_type="TOKEN", name=name, response_time=ms, response_length=tokens, exception=None, context={}
        )
