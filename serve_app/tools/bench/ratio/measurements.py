"""Loads of the comparisons, pictures, an identity model and completions, as measurements with numbers."""

import json
import math
from collections.abc import Sequence

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from serve_app.tools.bench.connection import Response, build_post
from serve_app.tools.bench.load import Load, LoadResult, run_http_load
from serve_app.tools.bench.ratio.rounds import Measurement
from serve_app.tools.bench.report import count_errors

BOUNDARY = "picture"
IDENTITY_BYTES = 60 << 10
PROMPT, TOKENS = "What is serve_app?", 64


def measure_pictures(url: str, path: str, pictures: Sequence[bytes], load: Load) -> Measurement:
    """Multipart forms, which every stack accepts."""
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    requests = [build_post(url, path, _form(picture), content_type) for picture in pictures]
    result = run_http_load(url, requests, load)
    return _measurement(result, {"images/s": result.throughput})


def _form(picture: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def identity_request(url: str) -> bytes:
    """60 KB in the binary form of tritonclient."""
    tensor = InferInput("INPUT0", [IDENTITY_BYTES], "UINT8")
    tensor.set_data_from_numpy(np.arange(IDENTITY_BYTES, dtype=np.uint8))
    body, header_bytes = InferenceServerClient.generate_request_body([tensor])
    path = "/v2/models/identity/infer"
    return build_post(url, path, bytes(body), Inference_Header_Content_Length=str(header_bytes))


def measure_identity(url: str, load: Load) -> Measurement:
    def check(response: Response) -> str:
        return "" if len(response.body) > IDENTITY_BYTES else "a short answer"

    result = run_http_load(url, [identity_request(url)], load, check)
    return _measurement(result, {"requests/s": result.throughput})


def measure_completions(url: str, model: str, load: Load) -> Measurement:
    """Streams with a fixed number of tokens: tokens per second and mean time to first token."""
    document = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    document |= {"stream": True, "stream_options": {"include_usage": True}}
    request = build_post(url, "/v1/completions", json.dumps(document).encode(), "application/json")

    def check(response: Response) -> str:
        return "" if f'"completion_tokens":{TOKENS}'.encode() in response.body else f"not {TOKENS} tokens"

    result = run_http_load(url, [request], load, check)
    first_ms = float(np.mean(result.first_byte_ms)) if result.first_byte_ms else math.nan
    return _measurement(result, {"tokens/s": result.throughput * TOKENS, "first token ms": first_ms})


def _measurement(result: LoadResult, numbers: dict[str, float]) -> Measurement:
    numbers["p99 ms"] = result.percentiles_ms.get("p99", math.nan)
    return Measurement(numbers, (*count_errors(result.errors), *result.warnings), result.errors.total())
