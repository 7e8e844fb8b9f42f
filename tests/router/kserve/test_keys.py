"""API keys over gRPC: single calls, each request of a stream, and the methods that probes call."""

import pytest
import yaml
from grpc import StatusCode

from serve_app.keys.counter import KeyCounter
from serve_app.keys.file import digest_of
from serve_app.keys.headers import key_headers
from serve_app.keys.leases import Leases
from serve_app.router.gate import Gate
from serve_app.router.kserve.service import messages as pb
from serve_app.settings import RouterSettings

PROBES = {"ServerLive", "ServerReady"}


@pytest.fixture
def guarded(service, tmp_path):
    """The service behind a keys file."""
    rows = [
        {"name": "vision", "sha256": digest_of("sa-vision"), "scopes": ["infer"], "requests_per_minute": 2},
        {"name": "chat", "sha256": digest_of("sa-chat"), "scopes": ["llm"]},
    ]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": rows}))
    counter, made = KeyCounter(), service()

    async def call(method, *arguments):
        return getattr(counter, method)(*arguments)

    made._gate = Gate(RouterSettings(keys_file=tmp_path / "keys.yaml"), Leases(call, "router"))
    return made


def infer_request():
    message = pb.ModelInferRequest(model_name="echo", raw_input_contents=[b"\1\0\0\0"])
    message.inputs.add(name="x", datatype="INT32", shape=[1])
    return message


async def test_all_but_probes_ask_for_a_key(guarded, context):
    for name, method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name.items():
        for headers in ({}, {"x_api_key": "sa-wrong"}, {"authorization": "Bearer sa-wrong"}):
            called, request = context(**headers), getattr(pb, method.input_type.name)()
            if name == "ModelStreamInfer":
                assert [answer async for answer in guarded.ModelStreamInfer(stream_of(), called)] == []
            else:
                await getattr(guarded, name)(request, called)
            assert (called.code is StatusCode.UNAUTHENTICATED) == (name not in PROBES), name


async def test_scopes_and_limits_are_statuses(guarded, context):
    codes, called = [], None
    for _ in range(3):
        called = context(**key_headers("sa-vision"))
        await guarded.ModelInfer(infer_request(), called)
        codes.append(called.code)
    assert codes == [None, None, StatusCode.RESOURCE_EXHAUSTED]
    assert "over its limit of 2 requests a minute" in called.details
    assert 55 <= int(called.trailing["retry-after"]) <= 61
    called = context(x_api_key="sa-chat")
    await guarded.ModelInfer(infer_request(), called)
    assert (called.code, called.details) == (
        StatusCode.PERMISSION_DENIED,
        "this needs the scope 'infer', which key 'chat' lacks; ask for a key that has it",
    )
    called = context(x_api_key="sa-chat")
    await guarded.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="echo"), called)
    assert called.code is StatusCode.PERMISSION_DENIED


async def test_each_request_of_a_stream_counts_and_the_stream_goes_on(guarded, context):
    called = context(**key_headers("sa-vision"))
    requests = stream_of(*(infer_request() for _ in range(4)))
    answers = [answer async for answer in guarded.ModelStreamInfer(requests, called)]
    assert called.code is None
    assert sorted(bool(answer.error_message) for answer in answers) == [False, False, True, True]


async def stream_of(*messages):
    for message in messages:
        yield message
