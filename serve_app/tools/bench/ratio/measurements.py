"""One turn of a contender: a load for some seconds, and the numbers that it gives."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from serve_app.tools.bench.connection import Answer, post
from serve_app.tools.bench.load import Generator, Outcome, Plan
from serve_app.tools.bench.ratio.rounds import Measured
from serve_app.tools.bench.report import BUSY_GENERATOR, percentiles

Check = Callable[[Answer], str]
BOUNDARY = "picture"
IDENTITY_BYTES = 60 << 10
PROMPT, TOKENS = "What is serve_app?", 64


@dataclass(frozen=True, slots=True)
class Load:
    clients: int = 16
    duration_s: float = 10.0
    warmup_s: float = 2.0


def picture_turn(url: str, path: str, pictures: Sequence[bytes], load: Load) -> Measured:
    """Pictures as forms send them, which every stack here reads."""
    requests = [post(url, path, form(picture), f"multipart/form-data; boundary={BOUNDARY}") for picture in pictures]
    return _numbers(_loaded(url, requests, load), "images/s")


def form(picture: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def identity_request(url: str) -> bytes:
    """60 KB, in the binary form of Triton's own client."""
    given = InferInput("INPUT0", [IDENTITY_BYTES], "UINT8")
    given.set_data_from_numpy(np.arange(IDENTITY_BYTES, dtype=np.uint8))
    body, header_bytes = InferenceServerClient.generate_request_body([given])
    path = "/v2/models/identity/infer"
    return post(url, path, bytes(body), Inference_Header_Content_Length=str(header_bytes))


def identity_turn(url: str, load: Load) -> Measured:
    def check(answer: Answer) -> str:
        return "" if len(answer.body) > IDENTITY_BYTES else "a short answer"

    return _numbers(_loaded(url, [identity_request(url)], load, check), "requests/s")


def completion_turn(url: str, model: str, load: Load) -> Measured:
    """Streams of a fixed number of tokens: how many of them a second, and how long until a stream's first."""
    document = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    document |= {"stream": True, "stream_options": {"include_usage": True}}
    request = post(url, "/v1/completions", json.dumps(document).encode(), "application/json")

    def check(answer: Answer) -> str:
        return "" if f'"completion_tokens":{TOKENS}'.encode() in answer.body else "other than all tokens"

    outcome = _loaded(url, [request], load, check)
    measured = _numbers(outcome, "streams/s")
    numbers = {
        "tokens/s": measured.numbers["streams/s"] * TOKENS,
        "first token ms": float(np.mean(outcome.first_ms)) if outcome.first_ms else math.nan,
    }
    return replace(measured, numbers=numbers)


def _loaded(url: str, requests: Sequence[bytes], load: Load, check: Check = lambda _: "") -> Outcome:
    return Generator(Plan(url, requests, load.clients, load.duration_s, load.warmup_s), check).run()


def _numbers(outcome: Outcome, rate: str) -> Measured:
    remarks = [f"{count} × {kind}" for kind, count in outcome.errors.items()]
    if outcome.generator_share > BUSY_GENERATOR:
        remarks.append("making the load took most of a core and may be the limit")
    numbers = {rate: len(outcome.took_ms) / outcome.wall_s, "p99 ms": percentiles(outcome.took_ms).get("p99", math.nan)}
    return Measured(numbers, tuple(remarks), outcome.errors.total())
