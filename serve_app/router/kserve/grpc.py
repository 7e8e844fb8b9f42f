"""KServe v2 over gRPC: the methods of GRPCInferenceService, as Ray Serve calls them on the router."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from google.protobuf.json_format import ParseDict
from grpc import StatusCode

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.admission import STREAMS, Admission
from serve_app.router.errors import public_error
from serve_app.router.gate import Caller, Gate, retry_metadata
from serve_app.router.kserve.documents import require_text
from serve_app.router.kserve.messages import parse_version, read_message, read_parameters, write_message
from serve_app.router.kserve.models import FIXED_SETTINGS, NO_SHARED_MEMORY, require_load_parameter
from serve_app.router.kserve.service import messages as pb
from serve_app.router.kserve.streams import answer_stream
from serve_app.router.observe import GRPC
from serve_app.router.offload import Offload
from serve_app.router.plane import DataPlane
from serve_app.router.requests import deadline_of
from serve_app.settings import RouterSettings
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.telemetry.observation import observed

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
Method = Callable[[Any, Any, Any], Awaitable[Any]]


def refuse(context: Any, problem: Exception) -> None:
    """Set the status instead of raising: Serve would log a stack trace for every mistake of a client."""
    error = public_error(problem)
    context.set_code(CODES.get(error.status, StatusCode.INTERNAL))
    context.set_details(error.message)
    if metadata := retry_metadata(problem):
        context.set_trailing_metadata(metadata)


def answering(empty: type[Any], keyless: bool = False) -> Callable[[Method], Method]:
    """An exception of the method becomes the call's status. `keyless` are the methods of probes."""

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        async def guarded(self: Any, request: Any, grpc_context: Any) -> Any:
            with self._metrics.observe(GRPC) as observation:
                observation.received_bytes = request.ByteSize()
                try:
                    if not keyless:
                        observation.caller = self._gate.caller(_metadata(grpc_context))
                    answer = await method(self, request, grpc_context)
                    observation.sent_bytes = answer.ByteSize()
                    return answer
                except Exception as problem:
                    refuse(grpc_context, problem)
                    return empty()

        return guarded

    return decorate


def unsupported(empty: type[Any], what: str) -> Method:
    @answering(empty)
    async def method(self: Any, request: Any, grpc_context: Any) -> Any:
        raise UnsupportedError(what)

    return method


class KserveGrpc:
    """A base of the router's class, because Serve calls a service's methods on it."""

    _metrics: RequestMetrics
    _plane: DataPlane
    _gate: Gate
    _offload: Offload
    _admission: Admission
    _router_settings: RouterSettings

    @answering(pb.ServerLiveResponse, keyless=True)
    async def ServerLive(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802 - names of the service
        return pb.ServerLiveResponse(live=True)

    @answering(pb.ServerReadyResponse, keyless=True)
    async def ServerReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=await self._plane.ready())

    @answering(pb.ModelReadyResponse)
    async def ModelReady(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=await self._plane.model_ready(request.name, parse_version(request.version)))

    @answering(pb.ServerMetadataResponse)
    async def ServerMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        return pb.ServerMetadataResponse(**self._plane.server_metadata())

    @answering(pb.ModelMetadataResponse)
    async def ModelMetadata(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        metadata = await self._plane.metadata(request.name, parse_version(request.version))
        return ParseDict(metadata, pb.ModelMetadataResponse(), ignore_unknown_fields=True)

    @answering(pb.ModelConfigResponse)
    async def ModelConfig(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        config = await self._plane.config(request.name, parse_version(request.version))
        return ParseDict({"config": config}, pb.ModelConfigResponse(), ignore_unknown_fields=True)

    @answering(pb.ModelStatisticsResponse)
    async def ModelStatistics(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        statistics = await self._plane.statistics(request.name, parse_version(request.version))
        return ParseDict(statistics, pb.ModelStatisticsResponse(), ignore_unknown_fields=True)

    @answering(pb.ModelInferResponse)
    async def ModelInfer(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        deadline = deadline_of(_metadata(grpc_context), self._router_settings)
        kind = self._admission.kind_of_model(request.model_name)
        async with self._gate.work(observed().caller, kind):
            with self._admission.work(kind):
                asked = await read_message(request, deadline, self._offload)
                return write_message(await self._plane.infer(asked))

    async def ModelStreamInfer(self, request: Any, grpc_context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            metadata = _metadata(grpc_context)
            caller = self._gate.caller(metadata)
            deadline = deadline_of(metadata, self._router_settings)
            enter = functools.partial(self._enter, caller)
            with self._admission.work(STREAMS):
                async for answer in answer_stream(self._plane, request, deadline, self._metrics, self._offload, enter):
                    yield answer
        except Exception as problem:
            refuse(grpc_context, problem)

    def _enter(self, caller: Caller | None, model: str) -> AbstractAsyncContextManager[None]:
        """Count one request of a stream."""
        observed().caller = caller
        return self._gate.work(caller, self._admission.kind_of_model(model))

    @answering(pb.RepositoryIndexResponse)
    async def RepositoryIndex(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        return ParseDict({"models": await self._plane.index(request.ready)}, pb.RepositoryIndexResponse())

    @answering(pb.RepositoryModelLoadResponse)
    async def RepositoryModelLoad(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        self._gate.require_control(_metadata(grpc_context))
        _require_no_repository(request)
        parameters = {}
        for name, parameter in request.parameters.items():
            require_load_parameter(name)
            kind = "string_param" if name == "config" else "bytes_param"
            if parameter.WhichOneof("parameter_choice") != kind:
                raise InvalidRequestError(f"load parameter '{name}' must be a {kind}")
            value = getattr(parameter, kind)
            parameters[name] = require_text(value, f"'{name}'") if name == "config" else value
        await self._plane.load(require_text(request.model_name, "'model_name'"), parameters)
        return pb.RepositoryModelLoadResponse()

    @answering(pb.RepositoryModelUnloadResponse)
    async def RepositoryModelUnload(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802
        self._gate.require_control(_metadata(grpc_context))
        _require_no_repository(request)
        model = require_text(request.model_name, "'model_name'")
        dependents = read_parameters(request.parameters).get("unload_dependents", False)
        if not isinstance(dependents, bool):
            raise InvalidRequestError("parameter 'unload_dependents' must be a bool_param")
        await self._plane.unload(model, dependents)
        return pb.RepositoryModelUnloadResponse()

    SystemSharedMemoryStatus = unsupported(pb.SystemSharedMemoryStatusResponse, NO_SHARED_MEMORY)
    SystemSharedMemoryRegister = unsupported(pb.SystemSharedMemoryRegisterResponse, NO_SHARED_MEMORY)
    SystemSharedMemoryUnregister = unsupported(pb.SystemSharedMemoryUnregisterResponse, NO_SHARED_MEMORY)
    CudaSharedMemoryStatus = unsupported(pb.CudaSharedMemoryStatusResponse, NO_SHARED_MEMORY)
    CudaSharedMemoryRegister = unsupported(pb.CudaSharedMemoryRegisterResponse, NO_SHARED_MEMORY)
    CudaSharedMemoryUnregister = unsupported(pb.CudaSharedMemoryUnregisterResponse, NO_SHARED_MEMORY)
    TraceSetting = unsupported(pb.TraceSettingResponse, FIXED_SETTINGS)
    LogSettings = unsupported(pb.LogSettingsResponse, FIXED_SETTINGS)


def _metadata(context: Any) -> dict[str, str]:
    return dict(context.invocation_metadata())


def _require_no_repository(request: Any) -> None:
    if request.repository_name:
        raise UnsupportedError("'repository_name' specification is not supported")
