"""Language models as Triton models: the two sets of tensors that their clients know, read and written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app.errors import InvalidRequestError
from serve_app.llm.sampling import parse_parameters
from serve_app.types.tensors import LENGTH_BYTES, InferRequest, Tensor, pack_elements

FLAG, TEXT = "BOOL", "BYTES"
# Triton's vLLM backend gives these on demand: the flag that asks, and the output with its type.
EXTRAS: Mapping[str, tuple[str, str]] = {
    "return_finish_reason": ("finish_reason", TEXT),
    "return_cumulative_logprob": ("cumulative_logprob", "FP32"),
    "return_logprobs": ("logprobs", TEXT),
    "return_num_input_tokens": ("num_input_tokens", "UINT32"),
    "return_num_output_tokens": ("num_output_tokens", "UINT32"),
}
EXCLUDE = "exclude_input_in_output"


@dataclass(frozen=True, slots=True)
class Contract:
    """Names of the tensors; `whole` ones answer with the prompt and all text so far, the other with what is new."""

    prompt: str
    stream: str
    parameters: str
    text: str
    whole: bool
    flags: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, str]:
        named = {self.prompt: TEXT, self.stream: FLAG, self.parameters: TEXT}
        return named | dict.fromkeys(self.flags, FLAG)

    @property
    def outputs(self) -> dict[str, str]:
        return {self.text: TEXT} | {EXTRAS[flag][0]: EXTRAS[flag][1] for flag in self.flags if flag in EXTRAS}


PROMPT = Contract("PROMPT", "STREAM", "SAMPLING_PARAMETERS", "TEXT", whole=True)
TEXT_INPUT = Contract("text_input", "stream", "sampling_parameters", "text_output", False, (EXCLUDE, *EXTRAS))
CONTRACTS = (PROMPT, TEXT_INPUT)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a request asks for, whichever contract it came under."""

    contract: Contract
    prompt: str
    stream: bool
    with_prompt: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    extras: tuple[str, ...] = ()


def read_generation(asked: InferRequest) -> Generation:
    """Refuses what is not one of the contracts, in the words of the tensor that is wrong."""
    tensors = {tensor.name: tensor for tensor in asked.inputs}
    contract = _contract_of(tensors)
    for name, tensor in tensors.items():
        if name not in contract.inputs:
            raise InvalidRequestError(f"unexpected inference input '{name}' beside '{contract.prompt}'")
        if tensor.datatype != contract.inputs[name]:
            expected = contract.inputs[name]
            raise InvalidRequestError(f"input '{name}' has datatype {tensor.datatype}, expected {expected}")
    for output in asked.outputs:
        if output.name not in contract.outputs:
            there_is = ", ".join(contract.outputs)
            raise InvalidRequestError(f"unexpected inference output '{output.name}'; there is: {there_is}")
    prompt = text_of(tensors[contract.prompt])
    if not prompt:
        raise InvalidRequestError(f"{contract.prompt} is empty")
    return _with_parameters(asked, contract, tensors, prompt)


def _contract_of(tensors: Mapping[str, Tensor]) -> Contract:
    found = [contract for contract in CONTRACTS if contract.prompt in tensors]
    if len(found) != 1:
        names = " or ".join(contract.prompt for contract in CONTRACTS)
        raise InvalidRequestError(f"a request has one input {names}, got {', '.join(tensors) or 'none'}")
    return found[0]


def _with_parameters(asked: InferRequest, contract: Contract, tensors: Mapping[str, Tensor], prompt: str) -> Generation:
    """Flags are tensors, or parameters of the request; so are sampling parameters, where their tensor is absent."""
    loose = dict(asked.parameters)
    flags = {name: flag_of(tensors[name]) for name in (contract.stream, *contract.flags) if name in tensors}
    for name in (contract.stream, *contract.flags):
        if name in loose:
            value = _as_flag(name, loose.pop(name))
            flags.setdefault(name, value)
    stream = flags.get(contract.stream, False)
    if contract.parameters in tensors:
        parameters = parse_parameters(contract.parameters, text_of(tensors[contract.parameters]))
    elif contract.parameters in loose:
        parameters = parse_parameters(contract.parameters, str(loose.pop(contract.parameters)))
    else:
        parameters = loose
    adapter = parameters.pop("lora_name", None)
    if contract.whole:
        with_prompt = True
    else:
        with_prompt = not flags.get(EXCLUDE, stream)
        if with_prompt and stream:
            raise InvalidRequestError(f"when streaming, `{EXCLUDE}` = False is not allowed")
    extras = tuple(flag for flag in EXTRAS if flags.get(flag))
    return Generation(contract, prompt, stream, with_prompt, parameters, adapter and str(adapter), extras)


def _as_flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InvalidRequestError(f"parameter '{name}' is neither true nor false: {value!r}")


def text_of(tensor: Tensor) -> str:
    """The one element of a BYTES tensor."""
    data = bytes(tensor.data)
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    if len(data) < LENGTH_BYTES or len(data) < LENGTH_BYTES + length:
        raise InvalidRequestError(f"input '{tensor.name}' is cut off: {len(data)} bytes are less than its length says")
    if _count(tensor) != 1 or len(data) > LENGTH_BYTES + length:
        raise InvalidRequestError(f"input '{tensor.name}' has shape {list(tensor.shape)}; it takes one element")
    try:
        return data[LENGTH_BYTES:].decode()
    except UnicodeDecodeError as problem:
        raise InvalidRequestError(f"input '{tensor.name}' is not UTF-8, byte {problem.start} on") from None


def flag_of(tensor: Tensor) -> bool:
    if _count(tensor) != 1:
        raise InvalidRequestError(f"input '{tensor.name}' has shape {list(tensor.shape)}; it takes one element")
    return bool(tensor.array().reshape(-1)[0])


def _count(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape, dtype=object)) if tensor.shape else 1


def pack_texts(name: str, texts: list[str]) -> Tensor:
    return Tensor(name, TEXT, (len(texts),), pack_elements([text.encode(errors="replace") for text in texts]))


def pack_numbers(name: str, datatype: str, values: list[Any]) -> Tensor:
    kind = np.uint32 if datatype == "UINT32" else np.float32
    return Tensor(name, datatype, (len(values),), np.asarray(values, kind).tobytes())


def metadata_of(model: str) -> dict[str, Any]:
    """Both contracts: a client uses the tensors that it knows."""
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


def config_of(model: str) -> dict[str, Any]:
    """As Triton would show a decoupled model of its vLLM backend."""
    metadata = metadata_of(model)

    def rows(part: str, more: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"name": row["name"], "data_type": f"TYPE_{_config_type(row['datatype'])}", "dims": row["shape"]} | more
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


def _config_type(datatype: str) -> str:
    return "STRING" if datatype == TEXT else datatype
