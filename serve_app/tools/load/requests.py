"""Requests of the Locust users, built before the load starts."""

import json
from collections.abc import Sequence

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from serve_app.detection.preprocess import as_unit_planes, decode, letterbox
from serve_app.errors import InvalidRequestError
from serve_app.types import MAX_PIXELS

Request = tuple[str, bytes, dict[str, str]]  # path, body, headers
SQUARE_PX = 640
PIPELINE = "_gpu_e2e"  # in the name of a model that takes whole pictures


def require_choice(text: str, known: Sequence[str]) -> list[str]:
    chosen = [name.strip() for name in text.split(",")]
    for name in chosen:
        if name not in known:
            raise InvalidRequestError(f"--what: {name!r} is not one of {', '.join(known)}")
    return chosen


def kserve_request(model: str, picture: bytes) -> Request:
    """A binary request, as tritonclient builds it."""
    tensor = _whole(picture) if PIPELINE in model else _square(picture)
    body, header_bytes = InferenceServerClient.generate_request_body([tensor])
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(header_bytes)}
    return f"/v2/models/{model}/infer", bytes(body), headers


def _whole(picture: bytes) -> InferInput:
    tensor = InferInput("encoded", [1, len(picture)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(picture, np.uint8)[None])
    return tensor


def _square(picture: bytes) -> InferInput:
    square, _ = letterbox(decode(picture, MAX_PIXELS), SQUARE_PX)
    tensor = InferInput("images", [1, 3, SQUARE_PX, SQUARE_PX], "FP32")
    tensor.set_data_from_numpy(as_unit_planes(square))
    return tensor


def chat_request(model: str, prompt: str, max_tokens: int) -> Request:
    messages = [{"role": "user", "content": prompt}]
    document = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    return "/v1/chat/completions", json.dumps(document).encode(), {"Content-Type": "application/json"}
