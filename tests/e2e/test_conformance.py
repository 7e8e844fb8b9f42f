"""The same requests to NVIDIA's own tritonserver, out of the same wheel, and to the service: the same answers."""

import gzip
import json
import struct
import zlib

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from serve_app.tools.bench.baselines.servers import tritonserver

HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def reference(service):
    """Triton's own HTTP and gRPC front ends over the models that the service has."""
    server = tritonserver(service.laboratory, service.laboratory_models)
    with server as addresses, httpx.Client(base_url=addresses.url, timeout=60) as client:
        yield client, addresses.grpc


def tensor(name="IN0", datatype="FP32", shape=(2,), data=(1, 2.5), **more):
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": list(data)} | more


def document(*inputs, **more):
    return json.dumps({"inputs": list(inputs or [tensor()])} | more).encode()


def binary(data, shape=(2,), **more):
    entry = {"name": "IN0", "datatype": "FP32", "shape": list(shape), "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [entry]} | more).encode()
    return head + data, {HEADER: str(len(head))}


def out(**parameters):
    return [{"name": "OUT0", "parameters": parameters}]


VALUE_3 = tensor("VALUE", "FP32", (1, 1), [3])
WHOLE_SEQUENCE = {"sequence_id": 9, "sequence_start": True, "sequence_end": True}
ONE_OF_EACH_TYPE = [
    tensor("IN_BOOL", "BOOL", (1, 2), [True, False]), tensor("IN_UINT8", "UINT8", (1, 2), [0, 255]),
    tensor("IN_INT64", "INT64", (1, 2), [-(2**63), 2**63 - 1]), tensor("IN_FP32", "FP32", (1, 2), [0.1, 1e-30]),
    tensor("IN_FP64", "FP64", (1, 2), [0.1, -1.5e10]), tensor("IN_STRING", "BYTES", (1, 2), ["", "größer \" \\ \n"]),
]  # fmt: skip
INFER, ECHO = "/v2/models/identity/infer", "/v2/models/echo/infer"
TWO_FLOATS = struct.pack("<2f", 1, 2)
# Method, path, body and headers of valid requests, and of those that a model refuses. Where Triton says 500 to a
# mistake of the caller, here it is 400.
CASES = {
    "live": ("GET", "/v2/health/live"),
    "model ready": ("GET", "/v2/models/identity/ready"),
    "no such model ready": ("GET", "/v2/models/nope/ready"),
    "no such version ready": ("GET", "/v2/models/identity/versions/7/ready"),
    "metadata": ("GET", "/v2/models/echo"),
    "metadata of a version": ("GET", "/v2/models/identity/versions/1"),
    "metadata of no version": ("GET", "/v2/models/identity/versions/9"),
    "a version that is none": ("GET", "/v2/models/identity/versions/x"),
    "config": ("GET", "/v2/models/accumulate/config"),
    "ensemble config": ("GET", "/v2/models/chain/config"),
    "statistics of no model": ("GET", "/v2/models/nope/stats"),
    "no such path": ("GET", "/v2/nothing"),
    "wrong method": ("GET", INFER),
    "load from a named repository": ("POST", "/v2/repository/foo/models/identity/load"),
    "json": ("POST", INFER, document()),
    "id": ("POST", INFER, document(id="größer")),
    "version": ("POST", "/v2/models/identity/versions/1/infer", document()),
    "no such version": ("POST", "/v2/models/identity/versions/3/infer", document()),
    "every type": ("POST", ECHO, document(*ONE_OF_EACH_TYPE)),
    "some outputs": ("POST", ECHO, document(*ONE_OF_EACH_TYPE, outputs=[{"name": "OUT_BOOL"}, {"name": "OUT_INT64"}])),
    "empty outputs": ("POST", INFER, document(outputs=[])),
    "nested data": ("POST", INFER, document(tensor(data=[[1], [2]]))),
    "empty tensor": ("POST", INFER, document(tensor(shape=[0], data=[]))),
    "infinite": ("POST", INFER, document(tensor(data=[1e300, -1e300]))),
    "nan": ("POST", INFER, document().replace(b"2.5", b"NaN")),
    "parameters": ("POST", INFER, document(parameters={"a": 1, "b": "x", "c": True, "d": 1.5})),
    "a parameter of no type": ("POST", INFER, document(parameters={"a": {}})),
    "a reserved parameter": ("POST", INFER, document(parameters={"triton_x": 1})),
    "priority": ("POST", INFER, document(parameters={"priority": 1})),
    "sequence": ("POST", "/v2/models/accumulate/infer", document(VALUE_3, parameters=WHOLE_SEQUENCE)),
    "a sequence of text": ("POST", "/v2/models/accumulate/infer",
                           document(VALUE_3, parameters=WHOLE_SEQUENCE | {"sequence_id": "key"})),
    "a sequence without a start": ("POST", "/v2/models/accumulate/infer",
                                   document(VALUE_3, parameters={"sequence_id": 10})),
    "classes": ("POST", INFER, document(outputs=out(classification=2))),
    "more classes than there are": ("POST", INFER, document(outputs=out(classification=20))),
    "no classes": ("POST", INFER, document(outputs=out(classification=0))),
    "classes of integers": ("POST", ECHO, document(
        tensor("IN_INT8", "INT8", (1, 3), [5, -5, 7]),
        outputs=[{"name": "OUT_INT8", "parameters": {"classification": 2}}])),
    "binary output": ("POST", INFER, document(outputs=out(binary_data=True))),
    "all outputs binary": ("POST", INFER, document(parameters={"binary_data_output": True})),
    "binary input": ("POST", INFER, *binary(TWO_FLOATS)),
    "binary both ways": ("POST", INFER, *binary(TWO_FLOATS, outputs=out(binary_data=True))),
    "binary input cut off": ("POST", INFER, binary(TWO_FLOATS)[0][:-3], binary(TWO_FLOATS)[1]),
    "binary input too long": ("POST", INFER, binary(TWO_FLOATS)[0] + b"xx", binary(TWO_FLOATS)[1]),
    "header longer than the body": ("POST", INFER, document(), {HEADER: "100000"}),
    "raw binary": ("POST", INFER, TWO_FLOATS, {HEADER: "0"}),
    "gzip": ("POST", INFER, gzip.compress(document()), {"Content-Encoding": "gzip"}),
    "deflate": ("POST", INFER, zlib.compress(document()), {"Content-Encoding": "deflate"}),
    "gzip accepted": ("POST", INFER, document(), {"Accept-Encoding": "gzip"}),
    "deflate accepted": ("POST", INFER, document(), {"Accept-Encoding": "deflate, gzip"}),
    "neither accepted": ("POST", INFER, document(), {"Accept-Encoding": "br"}),
    "no such input": ("POST", INFER, document(tensor("Q"))),
    "wrong type": ("POST", INFER, document(tensor(datatype="INT32", data=[1, 2]))),
    "a type that is none": ("POST", INFER, document(tensor(datatype="FOO"))),
    "no such output": ("POST", INFER, document(outputs=[{"name": "NOPE"}])),
    "an error of the model": ("POST", "/v2/models/failing/infer", document(tensor("HOW", "BYTES", [1], ["busy"]))),
    "generate": ("POST", "/v2/models/identity/generate", b'{"IN0": [1, 2.5], "id": "7"}'),
    "generate one value": ("POST", "/v2/models/identity/generate", b'{"IN0": 1.5, "other": "x"}'),
    "generate without its input": ("POST", "/v2/models/identity/generate", b"{}"),
    "generate from a decoupled model": ("POST", "/v2/models/decoupled/generate", b'{"COUNT": [1, 0]}'),
    "generate many": ("POST", "/v2/models/decoupled/generate_stream", b'{"COUNT": [3, 0]}'),
    "generate none": ("POST", "/v2/models/decoupled/generate_stream", b'{"COUNT": [0, 0]}'),
}  # fmt: skip


def essence(answer):
    """What must be equal: all but the date, the server's name and the like."""
    headers = {header: answer.headers.get(header) for header in ("content-encoding", HEADER)}
    if answer.status_code == 200 and answer.content:
        headers["content-type"] = answer.headers["content-type"].split(";")[0]
    return answer.status_code, answer.text, headers


def test_http_answers_are_tritons_own(client, reference):
    different = {}
    for case, (method, path, *rest) in CASES.items():
        content, headers = [*rest, None, None][:2]
        ours, theirs = (
            essence(one.request(method, path, content=content, headers=headers or {"Accept-Encoding": "identity"}))
            for one in (client, reference[0])
        )
        if ours != theirs:
            different[case] = (ours, theirs)
    assert different == {}


def message(model="identity", name="IN0", datatype="FP32", shape=(2,), raw=TWO_FLOATS, **more):
    request = pb.ModelInferRequest(model_name=model, **more)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)
    return request


def with_parameter(request, name, **value):
    request.parameters[name].MergeFrom(pb.InferParameter(**value))
    return request


def classified():
    request = message()
    request.outputs.add(name="OUT0").parameters["classification"].int64_param = 1
    return request


CALLS = {
    "live": ("ServerLive", pb.ServerLiveRequest()),
    "ready": ("ModelReady", pb.ModelReadyRequest(name="identity", version="1")),
    "not ready": ("ModelReady", pb.ModelReadyRequest(name="nope")),
    "metadata": ("ModelMetadata", pb.ModelMetadataRequest(name="echo")),
    "config": ("ModelConfig", pb.ModelConfigRequest(name="accumulate")),
    "ensemble config": ("ModelConfig", pb.ModelConfigRequest(name="chain")),
    "no version": ("ModelMetadata", pb.ModelMetadataRequest(name="identity", version="9")),
    "statistics of no model": ("ModelStatistics", pb.ModelStatisticsRequest(name="nope")),
    "unload of no model": ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="nope")),
    "a named repository": ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(repository_name="x", model_name="y")),
    "infer": ("ModelInfer", message(id="q")),
    "classes": ("ModelInfer", classified()),
    "a parameter": ("ModelInfer", with_parameter(message(), "a", double_param=1.5)),
    "no such version": ("ModelInfer", message(model_version="9")),
    "an error of the model": ("ModelInfer", message("failing", "HOW", "BYTES", [1], b"\x04\0\0\0busy")),
}
WITH_FINAL_RESPONSE = "triton_enable_empty_final_response"
STREAMS = {
    "two answers": [message("decoupled", "COUNT", raw=struct.pack("<2f", 2, 0), id="a")],
    "with the empty last one": [
        with_parameter(
            message("decoupled", "COUNT", raw=struct.pack("<2f", 2, 0), id="a"), WITH_FINAL_RESPONSE, bool_param=True
        )
    ],
    "no answer": [message("decoupled", "COUNT", raw=struct.pack("<2f", 0, 0))],
    "a model with one answer": [message(id="z")],
    "an error of the model": [message("failing", "HOW", "BYTES", [1], b"\x04\0\0\0busy", id="e")],
    "nothing": [],
}


def call(address, method, request):
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            if isinstance(request, list):
                return [MessageToDict(answer) for answer in stub.ModelStreamInfer(iter(request), timeout=60)]
            return MessageToDict(getattr(stub, method)(request, timeout=60))
        except grpc.RpcError as problem:
            return problem.code(), problem.details()


def test_grpc_answers_are_tritons_own(service, reference):
    for case, (method, request) in CALLS.items():
        assert call(service.grpc_host, method, request) == call(reference[1], method, request), case


def test_grpc_streams_are_tritons_own(service, reference):
    for case, messages in STREAMS.items():
        assert call(service.grpc_host, "", messages) == call(reference[1], "", messages), case
