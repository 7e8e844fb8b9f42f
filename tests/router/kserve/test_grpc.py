"""The methods of the gRPC service: their answers, the status of each failure, and loads with the admin key."""

import asyncio
import importlib
import pickle

import pytest
from grpc import StatusCode

from serve_app import errors
from serve_app.router.kserve.grpc import KserveGrpc
from serve_app.router.kserve.models import FIXED_SETTINGS, NO_SHARED_MEMORY
from serve_app.router.kserve.service import add_to_server
from serve_app.router.kserve.service import messages as pb
from serve_app.settings import RouterSettings

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
CHANGES = ("RepositoryModelLoad", "RepositoryModelUnload")
ASKING = ("ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer", *CHANGES)
MEMORIES = [f"{kind}SharedMemory{end}" for kind in ("System", "Cuda") for end in ("Status", "Register", "Unregister")]


def infer(model="echo", **fields):
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=[b"\1\2"], **fields)
    made.inputs.add(name="x", datatype="UINT8", shape=[2])
    return made


def request_of(method):
    if method == "ModelInfer":
        return infer()
    made = getattr(pb, METHODS[method].input_type.name)()
    setattr(made, "model_name" if method.startswith("Repository") else "name", "echo")
    return made


CODES = {
    errors.InvalidRequestError: StatusCode.INVALID_ARGUMENT,
    errors.UnauthorizedError: StatusCode.UNAUTHENTICATED,
    errors.ForbiddenError: StatusCode.PERMISSION_DENIED,
    errors.NotFoundError: StatusCode.NOT_FOUND,
    errors.PayloadTooLargeError: StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyRequestsError: StatusCode.RESOURCE_EXHAUSTED,
    errors.UnsupportedError: StatusCode.UNIMPLEMENTED,
    errors.UnavailableError: StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: StatusCode.DEADLINE_EXCEEDED,
    errors.ModelError: StatusCode.INTERNAL,
    errors.ModelLoadError: StatusCode.INTERNAL,
}


async def test_every_error_has_its_status_and_message_and_internal_ones_show_nothing(ask, plane):
    cases = [(error("the reason, grün"), code, "the reason, grün") for error, code in CODES.items()]
    for internal in (KeyError("secret"), errors.EngineError("secret"), RuntimeError("core.cpp secret")):
        cases.append((internal, StatusCode.INTERNAL, "internal error; see the service's log"))
    for method in ASKING:
        for problem, code, message in cases:
            plane.problem = problem
            answer, *status = await ask(method, request_of(method))
            assert status == [code, message], method
            assert answer.ByteSize() == 0


async def test_the_cancellation_of_a_call_is_not_answered(ask, plane):
    plane.problem = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await ask("ModelInfer", infer())


async def test_an_inference_is_answered_and_its_deadline_is_passed_on(ask, plane):
    answer, code, _ = await ask("ModelInfer", infer(id="i"), metadata={"x_request_timeout_s": "1e-9"})
    assert code is None
    assert (answer.model_name, answer.model_version, answer.id) == ("echo", "1", "i")
    assert [(out.name, out.datatype, list(out.shape)) for out in answer.outputs] == [("x_out", "UINT8", [2])]
    assert list(answer.raw_output_contents) == [b"\1\2"]
    await ask("ModelInfer", infer())
    short, usual = (asked.deadline for asked in plane.asked)
    assert usual - short >= RouterSettings().request_timeout_s - 1e-3


async def test_a_wrong_request_is_refused_before_it_reaches_a_model(ask, plane):
    late = {"x_request_timeout_s": "soon"}
    for asked, metadata in ((infer(model="a\0"), {}), (pb.ModelInferRequest(model_name="echo", id="\0"), {}),
                            (infer(model_version="latest"), {}), (infer(), late)):  # fmt: skip
        _, code, details = await ask("ModelInfer", asked, metadata=metadata)
        assert (code, bool(details)) == (StatusCode.INVALID_ARGUMENT, True)
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        _, code, details = await ask(method, name="echo", version="newest")
        assert code is StatusCode.INVALID_ARGUMENT
        assert "failed to get model version from specified version string 'newest'" in details
    assert plane.asked == []


async def test_live_and_ready_are_answered_apart(ask, plane):
    for ready in (True, False):
        plane.is_ready = ready
        assert (await ask("ServerLive"))[0].live
        assert (await ask("ServerReady"))[0].ready is ready
        assert (await ask("ModelReady", name="echo", version="3"))[0].ready is ready
    assert (await ask("ModelReady", name="none"))[:2] == (pb.ModelReadyResponse(ready=False), None)
    assert plane.asked == [("echo", 3), ("echo", 3), ("none", -1)]


async def test_metadata_and_config_become_messages_and_unknown_fields_are_dropped(ask, plane):
    server = pb.ServerMetadataResponse(name="serve_app", version="1.2", extensions=["statistics"])
    assert (await ask("ServerMetadata"))[0] == server
    plane.inputs = [{"name": "x", "datatype": "INT32", "shape": [-1, 2], "unknown": {"a": 1}}]
    metadata, code, _ = await ask("ModelMetadata", name="echo", version="7")
    assert (code, metadata.name, list(metadata.versions)) == (None, "echo", ["7"])
    assert [(row.name, row.datatype, list(row.shape)) for row in metadata.inputs] == [("x", "INT32", [-1, 2])]
    plane.max_batch_size = 8
    config = (await ask("ModelConfig", name="echo"))[0].config
    assert (config.name, config.max_batch_size) == ("echo", 8)


async def test_a_config_becomes_tritons_message(ask, plane, monkeypatch):
    async def config(model, version):
        return {
            "name": model, "backend": "python", "new_in_triton": [1], "version_policy": {"latest": {"num_versions": 1}},
            "input": [{"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": [-1, 3]}],
            "instance_group": [{"name": "g", "kind": "KIND_CPU", "count": 2, "gpus": []}],
            "parameters": {"key": {"string_value": "value"}}, "model_transaction_policy": {"decoupled": True},
        }  # fmt: skip

    monkeypatch.setattr(plane, "config", config)
    found = (await ask("ModelConfig", name="echo"))[0].config
    assert (found.backend, found.version_policy.latest.num_versions) == ("python", 1)
    assert (list(found.input[0].dims), found.input[0].data_type) == ([-1, 3], 11)
    assert (found.instance_group[0].count, found.parameters["key"].string_value) == (2, "value")
    assert found.model_transaction_policy.decoupled


async def test_statistics_of_one_model_or_all_become_a_message(ask, plane, monkeypatch):
    for name, expected in (("", "all"), ("echo", "echo")):
        (row,) = (await ask("ModelStatistics", name=name))[0].model_stats
        assert (row.name, row.version) == (expected, "-1")

    async def statistics(model, version):
        counts = {"success": {"count": 3, "ns": 2**63}, "new_in_triton": {"count": 1, "ns": 1}}
        rows = [{"batch_size": 4, "compute_infer": {"count": 1, "ns": 5}}]
        row = {"name": model, "version": "1", "last_inference": 1 << 40, "inference_stats": counts, "batch_stats": rows}
        return {"model_stats": [row]}

    monkeypatch.setattr(plane, "statistics", statistics)
    (row,) = (await ask("ModelStatistics", name="echo"))[0].model_stats
    assert (row.last_inference, row.inference_stats.success.count) == (1 << 40, 3)
    assert (row.inference_stats.success.ns, row.batch_stats[0].compute_infer.ns) == (2**63, 5)


async def test_the_index_has_all_models_or_those_that_are_ready(ask):
    for only_ready, expected in ((False, "bac"), (True, "ba")):
        answer, code, _ = await ask("RepositoryIndex", ready=only_ready, repository_name="any")
        assert (code, "".join(row.name for row in answer.models)) == (None, expected)
    assert [(row.version, row.state) for row in answer.models] == [("", "READY"), ("1", "READY")]


async def test_a_stream_answers_each_request_and_a_wrong_deadline_refuses_all_of_it(service, context):
    async def requests():
        yield infer(id="a")
        yield infer(model="none", id="b")

    accepted, refused = context(), context(x_request_timeout_s="0")
    answers = [answer async for answer in service().ModelStreamInfer(requests(), accepted)]
    found = {answer.infer_response.id: answer.error_message for answer in answers}
    assert found == {"a": "", "b": "Request for unknown model: 'none' is not found; available: echo"}
    assert accepted.code is None
    assert [answer async for answer in service().ModelStreamInfer(requests(), refused)] == []
    assert refused.code is StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_breaks_shows_no_internals(service, context):
    async def requests():
        yield infer(id="a")
        raise ConnectionResetError("10.0.0.1 secret")

    broken = context()
    assert len([answer async for answer in service().ModelStreamInfer(requests(), broken)]) <= 1
    assert (broken.code, broken.details) == (StatusCode.INTERNAL, "internal error; see the service's log")


async def test_unsupported_methods_give_their_reason(ask):
    for method in (*MEMORIES, "TraceSetting", "LogSettings"):
        answer, *status = await ask(method)
        assert status == [StatusCode.UNIMPLEMENTED, NO_SHARED_MEMORY if method in MEMORIES else FIXED_SETTINGS]
        assert answer.ByteSize() == 0


def test_every_method_of_the_service_exists_and_is_registered():
    found = []

    class Server:
        def add_generic_rpc_handlers(self, handlers):
            found.extend(handlers)

        def add_registered_method_handlers(self, service, handlers):
            assert (service, set(handlers)) == ("inference.GRPCInferenceService", set(METHODS))

    assert all(name in vars(KserveGrpc) for name in METHODS)
    add_to_server(KserveGrpc(), Server())
    assert len(found) == 1


def test_messages_can_be_pickled():
    config = pb.ModelConfigResponse()
    config.config.name = "echo"
    for made in (infer(id="grün"), pb.ModelStreamInferResponse(), config, config.config):
        back = pickle.loads(pickle.dumps(made))
        assert (type(back), back) == (type(made), made)
        assert getattr(importlib.import_module(type(made).__module__), type(made).__name__) is type(made)


async def test_every_call_is_counted_with_its_status_and_its_bytes(ask, recorded):
    await ask("ServerLive")
    await ask("ModelMetadata", name="nobody")
    calls = [(tags["protocol"], tags["status"]) for name, tags, _ in recorded if name == "serve_app_requests"]
    assert calls == [("kserve-grpc", "200"), ("kserve-grpc", "404")]
    assert [tags["reason"] for name, tags, _ in recorded if name == "serve_app_rejected"] == ["not_found"]
    assert [value for name, _, value in recorded if name == "serve_app_sent_bytes"] == [2]


def load(model="echo", parameters=(), **fields):
    made = pb.RepositoryModelLoadRequest(model_name=model, **fields)
    for name, kind, value in parameters:
        made.parameters[name].SetInParent()
        if kind:
            setattr(made.parameters[name], kind, value)
    return made


async def test_a_load_takes_a_configuration_as_text_and_files_as_bytes(ask, plane):
    content = bytes(range(256))
    given = [("config", "string_param", '{"name": "grün"}'), ("file:1/model.py", "bytes_param", content),
             ("file:2/empty", "bytes_param", b"")]  # fmt: skip
    for made in (load(parameters=given), load()):
        answer, code, _ = await ask("RepositoryModelLoad", made)
        assert (answer.ByteSize(), code) == (0, None)
    files = {"file:1/model.py": content, "file:2/empty": b""}
    assert plane.changes == [("load", "echo", {"config": '{"name": "grün"}'} | files), ("load", "echo", {})]


LOADS = [
    *(("config", kind, value, "load parameter 'config' must be a string_param")
      for kind, value in (("bytes_param", b"{}"), ("bool_param", True), (None, None))),
    *(("file:1/m", kind, value, "load parameter 'file:1/m' must be a bytes_param")
      for kind, value in (("string_param", "YQ=="), ("int64_param", 1), (None, None))),
    ("file", "bytes_param", b"", "unknown load parameter 'file'; known are 'config' and 'file:<path>'"),
    ("file:\0", "bytes_param", b"", "a parameter's name must be valid UTF-8 without zero bytes"),
    ("config", "string_param", "{\0}", "'config' must be valid UTF-8 without zero bytes"),
]  # fmt: skip


def unload(kind=None, value=None):
    made = pb.RepositoryModelUnloadRequest(model_name="echo")
    if kind:
        setattr(made.parameters["unload_dependents"], kind, value)
    return made


async def test_a_wrong_load_or_unload_changes_nothing_and_is_explained(ask, plane):
    for name, kind, value, message in LOADS:
        _, *status = await ask("RepositoryModelLoad", load(parameters=[(name, kind, value)]))
        assert status == [StatusCode.INVALID_ARGUMENT, message]
    for kind, value in (("string_param", "true"), ("int64_param", 1)):
        _, *status = await ask("RepositoryModelUnload", unload(kind, value))
        assert status == [StatusCode.INVALID_ARGUMENT, "parameter 'unload_dependents' must be a bool_param"]
    for method in CHANGES:
        _, *status = await ask(method, model_name="echo", repository_name="other")
        assert status == [StatusCode.UNIMPLEMENTED, "'repository_name' specification is not supported"]
        _, *status = await ask(method, model_name="a\0b")
        assert status == [StatusCode.INVALID_ARGUMENT, "'model_name' must be valid UTF-8 without zero bytes"]
    assert plane.changes == []


async def test_an_unload_includes_the_dependents_if_asked_to(ask, plane):
    for made in (unload(), unload("bool_param", False), unload("bool_param", True)):
        answer, code, _ = await ask("RepositoryModelUnload", made)
        assert (answer.ByteSize(), code) == (0, None)
    assert plane.changes == [("unload", "echo", dependents) for dependents in (False, False, True)]


async def test_only_loads_and_unloads_need_the_admin_key_which_is_checked_first(ask, plane, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("right\n")
    for metadata, code in (
        ({}, StatusCode.UNAUTHENTICATED),
        ({"x_api_key": "right"}, StatusCode.UNAUTHENTICATED),
        ({"authorization": "Bearer wrong"}, StatusCode.PERMISSION_DENIED),
        ({"authorization": "Bearer right"}, None),
    ):
        for method in CHANGES:
            _, found, details = await ask(method, key_file=key_file, metadata=metadata, model_name="echo")
            assert found is code, (method, metadata)
            assert len(plane.changes) == (code is None)
            assert "right" not in (details or "")
            plane.changes.clear()
    for made in (load(repository_name="r"), load(parameters=[("x", None, None)]), load("none")):
        assert (await ask("RepositoryModelLoad", made, key_file=key_file))[1] is StatusCode.UNAUTHENTICATED
    for method in ("ServerReady", "RepositoryIndex", "ModelStatistics"):
        assert (await ask(method, key_file=key_file))[1] is None
