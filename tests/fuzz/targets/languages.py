"""Requests to language models: OpenAI's, sampling parameters, and those in Triton's tensors."""

from vllm import SamplingParams
from vllm.v1.serial_utils import MsgpackEncoder

from serve_app.errors import ServeAppError
from serve_app.llm.contracts import parse_request
from serve_app.llm.errors import translate_errors
from serve_app.llm.limits import EXTENSIONS
from serve_app.llm.openai_protocol import ENDPOINTS, with_usage
from serve_app.llm.openai_protocol import parse_request as parse_openai
from serve_app.llm.sampling import KNOWN, build_sampling_params, parse_json
from serve_app.router.kserve.documents import read_request
from serve_app.router.parsing import parse_object

WORDS = (
    *KNOWN, *sorted(EXTENSIONS), "model", "messages", "role", "user", "content", "text", "image_url", "tools", "type",
    "function", "name", "parameters", "tool_choice", "prompt", "input", "stream", "stream_options", "json_schema",
    "schema", "json", "regex", "grammar", "choice", "pattern", "minItems", "encoding_format", "dimensions", "logprobs",
    "text_input", "sampling_parameters", "PROMPT", "STREAM", "lora_name", "exclude_input_in_output",
)  # fmt: skip
KINDS = (*ENDPOINTS, "parameters", "tensors")


def take(data: bytes) -> None:
    """The first character is the number of the kind; the rest is JSON."""
    kind, text = KINDS[(data[0] - ord("0")) % len(KINDS)] if data else "parameters", data[1:]
    if kind in ENDPOINTS:
        request = parse_openai(kind, with_usage(parse_object(text)))
        if kind != "embeddings" and not request.use_beam_search:
            with translate_errors("model"):
                _send(request.to_sampling_params(16, {}))
        return
    try:
        parameters = _of_tensors(text) if kind == "tensors" else _of_parameters(text)
    except ServeAppError as problem:
        problem.message.encode()  # as gRPC sends it
        raise
    _send(parameters)


def _of_parameters(text: bytes) -> SamplingParams:
    return build_sampling_params(parse_json("sampling_parameters", text.decode(errors="replace")), stream=True)


def _of_tensors(text: bytes) -> SamplingParams:
    request, _ = read_request("model", 1, text, b"", None)
    generation = parse_request(request)
    return build_sampling_params(generation.parameters, generation.stream)


def _send(parameters: SamplingParams) -> None:
    """As they go to vLLM's engine."""
    with translate_errors("model"):
        MsgpackEncoder().encode(parameters)


def document_of(data: bytes) -> bytes:
    return data[1:]


def with_document(data: bytes, text: bytes) -> bytes:
    return data[:1] + text
