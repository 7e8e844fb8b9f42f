"""The generate extension: the fields of a JSON object are the inputs, and the answers are JSON objects."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import InvalidRequestError
from serve_app.router.errors import public_error
from serve_app.router.kserve.bodies import write_json
from serve_app.router.kserve.documents import custom_parameters, object_field, text_field
from serve_app.router.kserve.models import model_of
from serve_app.router.kserve.values import pack_values, unpack_values
from serve_app.router.offload import Offload
from serve_app.router.parsing import parse_object
from serve_app.router.plane import DataPlane
from serve_app.router.requests import deadline_of, read_body
from serve_app.router.streaming import EventStream
from serve_app.settings import RouterSettings
from serve_app.types.tensors import InferAnswer, InferRequest, Tensor

NOT_ONE = (
    "generate expects model to produce exactly 1 response, "
    "use generate stream for model that generates various number of responses"
)


class Generate:
    """Both endpoints; the model's metadata says which fields are inputs."""

    def __init__(self, plane: DataPlane, settings: RouterSettings, max_bytes: int, offload: Offload) -> None:
        self._plane = plane
        self._offload = offload
        self._settings = settings
        self._max_bytes = max_bytes

    async def one(self, request: Request) -> Response:
        answers = [answer async for answer in self._plane.stream(await self._read(request)) if not answer.empty]
        if len(answers) != 1:
            raise InvalidRequestError(NOT_ONE)
        return Response(write_json(_document(answers[0])), media_type="application/json")

    async def many(self, request: Request) -> Response:
        """Server-sent events; a failure before the first one is a plain error."""
        answers = self._plane.stream(await self._read(request))
        first = await anext(answers, None)
        return EventStream(_events(first, answers), answers)

    async def _read(self, request: Request) -> InferRequest:
        deadline = deadline_of(request.headers, self._settings)
        body = await read_body(request, self._max_bytes)
        document = await self._offload.run(parse_object, body, size=len(body), deadline=deadline)
        model, version = model_of(request)
        metadata, batched = await self._plane.signature(model, version, deadline)
        fields = {row["name"]: row for row in metadata["inputs"]}
        inputs = tuple(_tensor(fields[name], document[name], batched) for name in document if name in fields)
        return InferRequest(
            model=model,
            version=version,
            id=text_field(document, "id"),
            inputs=inputs,
            parameters=_parameters(document, fields),
            deadline=deadline,
        )


def _tensor(row: Mapping[str, Any], value: Any, batched: bool) -> Tensor:
    """A scalar is one element, a list one dimension; a batch has one member."""
    name, datatype = row["name"], row["datatype"]
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, list | dict) for item in values):
        raise InvalidRequestError(f"Unable to parse '{name}': generate takes a value or a flat list of values")
    shape = (1, len(values)) if batched else (len(values),)
    return Tensor(name, datatype, shape, pack_values(name, datatype, shape, values))


def _parameters(document: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that aren't inputs are parameters; `parameters` may hold more."""
    nested = object_field(document, "parameters")
    loose = {
        name: value
        for name, value in document.items()
        if name not in fields and name not in ("id", "parameters") and isinstance(value, str | int | float | bool)
    }
    return dict(custom_parameters(nested | loose, ()))


def _document(answer: InferAnswer) -> dict[str, Any]:
    values = {tensor.name: unpack_values(tensor) for tensor in answer.outputs}
    scalars = {name: found[0] if len(found) == 1 else found for name, found in values.items()}
    identity = {"id": answer.id} if answer.id else {}
    return scalars | identity | {"model_name": answer.model, "model_version": answer.version}


async def _events(first: InferAnswer | None, answers: AsyncGenerator[InferAnswer]) -> AsyncGenerator[bytes]:
    try:
        if first is not None and not first.empty:
            yield _event(_document(first))
        async for answer in answers:
            if not answer.empty:
                yield _event(_document(answer))
    except Exception as problem:  # the status is already sent: the error becomes the last event
        yield _event({"error": public_error(problem).message})


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + write_json(document) + b"\n\n"
