"""The two tensor contracts under which Triton clients call a language model, and the requests read from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app.errors import InvalidRequestError
from serve_app.llm.sampling import parse_json
from serve_app.types.tensors import LENGTH_BYTES, InferRequest, Tensor, pack_elements

FLAG, TEXT = "BOOL", "BYTES"
# Outputs of Triton's vLLM backend, by the flag that requests each, with their datatypes.
OPTIONAL_OUTPUTS: Mapping[str, tuple[str, str]] = {
    "return_finish_reason": ("finish_reason", TEXT),
    "return_cumulative_logprob": ("cumulative_logprob", "FP32"),
    "return_logprobs": ("logprobs", TEXT),
    "return_num_input_tokens": ("num_input_tokens", "UINT32"),
    "return_num_output_tokens": ("num_output_tokens", "UINT32"),
}
EXCLUDE_INPUT = "exclude_input_in_output"


@dataclass(frozen=True, slots=True)
class Contract:
    """Names of the tensors; a `cumulative` text output holds the prompt and all text so far, else the new text."""

    prompt: str
    stream: str
    parameters: str
    text: str
    cumulative: bool
    flags: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, str]:
        named = {self.prompt: TEXT, self.stream: FLAG, self.parameters: TEXT}
        return named | dict.fromkeys(self.flags, FLAG)

    @property
    def outputs(self) -> dict[str, str]:
        return {self.text: TEXT} | dict(OPTIONAL_OUTPUTS[flag] for flag in self.flags if flag in OPTIONAL_OUTPUTS)


PROMPT = Contract("PROMPT", "STREAM", "SAMPLING_PARAMETERS", "TEXT", cumulative=True)
TEXT_INPUT = Contract(
    "text_input", "stream", "sampling_parameters", "text_output", False, (EXCLUDE_INPUT, *OPTIONAL_OUTPUTS)
)
CONTRACTS = (PROMPT, TEXT_INPUT)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request under either contract; `optional_outputs` are the flags that were set."""

    contract: Contract
    prompt: str
    stream: bool
    with_prompt: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    optional_outputs: tuple[str, ...] = ()


def parse_request(request: InferRequest) -> GenerationRequest:
    """Raises InvalidRequestError, which names the tensor, for a request that fits neither contract."""
    tensors = {tensor.name: tensor for tensor in request.inputs}
    contract = _find_contract(tensors)
    for name, tensor in tensors.items():
        if name not in contract.inputs:
            raise InvalidRequestError(f"unexpected inference input '{name}' beside '{contract.prompt}'")
        if tensor.datatype != contract.inputs[name]:
            expected = contract.inputs[name]
            raise InvalidRequestError(f"input '{name}' has datatype {tensor.datatype}, expected {expected}")
    for output in request.outputs:
        if output.name not in contract.outputs:
            available = ", ".join(contract.outputs)
            raise InvalidRequestError(f"unexpected inference output '{output.name}'; available: {available}")
    prompt = read_text(tensors[contract.prompt])
    if not prompt:
        raise InvalidRequestError(f"input '{contract.prompt}' must not be empty")
    return _parse_options(request, contract, tensors, prompt)


def _find_contract(tensors: Mapping[str, Tensor]) -> Contract:
    found = [contract for contract in CONTRACTS if contract.prompt in tensors]
    if len(found) != 1:
        names = " and ".join(contract.prompt for contract in CONTRACTS)
        raise InvalidRequestError(f"expected exactly one of the inputs {names}, got {', '.join(tensors) or 'none'}")
    return found[0]


def _parse_options(
    request: InferRequest, contract: Contract, tensors: Mapping[str, Tensor], prompt: str
) -> GenerationRequest:
    """Flags and sampling parameters come as tensors or as request parameters; tensors take precedence."""
    remaining = dict(request.parameters)
    flags = {}
    for name in (contract.stream, *contract.flags):
        if name in remaining:
            flags[name] = _parse_flag(name, remaining.pop(name))
        if name in tensors:
            flags[name] = read_flag(tensors[name])
    if contract.parameters in tensors:
        parameters = parse_json(contract.parameters, read_text(tensors[contract.parameters]))
    elif contract.parameters in remaining:
        parameters = parse_json(contract.parameters, str(remaining.pop(contract.parameters)))
    else:
        parameters = remaining
    adapter = parameters.pop("lora_name", None)
    stream = flags.get(contract.stream, False)
    with_prompt = contract.cumulative or not flags.get(EXCLUDE_INPUT, stream)
    if with_prompt and stream and not contract.cumulative:
        raise InvalidRequestError(f"{EXCLUDE_INPUT} must be true for a streaming request")
    optional_outputs = tuple(flag for flag in OPTIONAL_OUTPUTS if flags.get(flag))
    return GenerationRequest(
        contract, prompt, stream, with_prompt, parameters, adapter and str(adapter), optional_outputs
    )


def _parse_flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InvalidRequestError(f"parameter '{name}' must be true or false, got {value!r}")


def read_text(tensor: Tensor) -> str:
    """The only element of a BYTES tensor."""
    data = bytes(tensor.data)
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if len(data) < LENGTH_BYTES + length:
        raise InvalidRequestError(
            f"input '{tensor.name}' is truncated: expected {LENGTH_BYTES + length} bytes, got {len(data)}"
        )
    if len(data) > LENGTH_BYTES + length:
        raise InvalidRequestError(f"input '{tensor.name}' must have one element, got shape {list(tensor.shape)}")
    _require_one_element(tensor)
    try:
        return data[LENGTH_BYTES:].decode()
    except UnicodeDecodeError as problem:
        raise InvalidRequestError(f"input '{tensor.name}' must be UTF-8: invalid byte at {problem.start}") from None


def read_flag(tensor: Tensor) -> bool:
    _require_one_element(tensor)
    return bool(tensor.array().reshape(-1)[0])


def _require_one_element(tensor: Tensor) -> None:
    if np.prod(tensor.shape, dtype=object) != 1:
        raise InvalidRequestError(f"input '{tensor.name}' must have one element, got shape {list(tensor.shape)}")


def pack_texts(name: str, texts: list[str]) -> Tensor:
    return Tensor(name, TEXT, (len(texts),), pack_elements([text.encode(errors="replace") for text in texts]))


def pack_numbers(name: str, datatype: str, values: list[Any]) -> Tensor:
    kind = np.uint32 if datatype == "UINT32" else np.float32
    return Tensor(name, datatype, (len(values),), np.asarray(values, kind).tobytes())


def build_metadata(model: str) -> dict[str, Any]:
    """KServe's model metadata, with the tensors of both contracts."""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for contract in CONTRACTS:
        inputs |= contract.inputs
        outputs |= contract.outputs
    return {
        "name": model,
        "versions": ["1"],
        "platform": "vllm",
        "inputs": [{"name": name, "datatype": datatype, "shape": [1]} for name, datatype in inputs.items()],
        "outputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in outputs.items()],
    }


def build_model_config(model: str) -> dict[str, Any]:
    """Triton's model configuration, as its vLLM backend has it."""
    metadata = build_metadata(model)

    def rows(part: str, more: dict[str, Any]) -> list[dict[str, Any]]:
        types = {TEXT: "STRING"}
        return [
            {
                "name": row["name"],
                "data_type": f"TYPE_{types.get(row['datatype'], row['datatype'])}",
                "dims": row["shape"],
            }
            | more
            for row in metadata[part]
        ]

    return {
        "name": model,
        "platform": "",
        "backend": "vllm",
        "max_batch_size": 0,
        "input": rows("inputs", {"optional": True}),
        "output": rows("outputs", {}),
        "model_transaction_policy": {"decoupled": True},
        "version_policy": {"latest": {"num_versions": 1}},
    }
