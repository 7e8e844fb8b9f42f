"""The generate extension: fields become inputs and parameters, answers become JSON or events."""

import json

import pytest

from serve_app.errors import ModelError, UnavailableError
from serve_app.types.tensors import InferAnswer, Tensor

ECHO = "/v2/models/echo"
TEXT = {"name": "text", "datatype": "BYTES", "shape": [1]}
COUNT = {"name": "count", "datatype": "INT32", "shape": [-1]}


@pytest.fixture(autouse=True)
def _inputs(plane):
    plane.inputs = [TEXT, COUNT]


def answer(text, final=False, empty=False, **fields):
    data = text.encode()
    outputs = () if empty else (Tensor("out", "BYTES", (1,), len(data).to_bytes(4, "little") + data),)
    return InferAnswer("echo", "1", outputs=outputs, final=final, **fields)


def events_of(answer):
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


async def test_the_fields_that_a_models_metadata_names_are_its_inputs(client, plane):
    document = {"id": "7", "text": "grün", "count": [1, 2, 3], "temperature": 0.5, "parameters": {"top_k": 5}}
    for max_batch_size, batch in ((0, ()), (4, (1,))):
        plane.max_batch_size = max_batch_size
        answered = await client.post(f"{ECHO}/versions/2/generate", json=document)
        assert answered.status_code == 200, answered.text
        assert answered.headers["content-type"] == "application/json"
        assert answered.json() == {
            "text_out": "grün", "count_out": [1, 2, 3], "id": "7", "model_name": "echo", "model_version": "1",
        }  # fmt: skip
        asked = plane.asked.pop()
        assert (asked.version, asked.id) == (2, "7")
        assert {tensor.name: tensor.shape for tensor in asked.inputs} == {"text": (*batch, 1), "count": (*batch, 3)}
        assert asked.parameters == {"temperature": 0.5, "top_k": 5}


NO_FLAT_LIST = "generate takes a value or a flat list of values"
REFUSED = [
    ({"text": [["a"]]}, f"Unable to parse 'text': {NO_FLAT_LIST}"),
    ({"text": ["a", {}]}, f"Unable to parse 'text': {NO_FLAT_LIST}"),
    ({"text": 1}, "the data of input 'text' has values that are not BYTES"),
    ({"text": None}, "the data of input 'text' has values that are not BYTES"),
    ({"count": "1"}, "the data of input 'count' has values that are not INT32"),
    ({"count": {"a": 1}}, f"Unable to parse 'count': {NO_FLAT_LIST}"),
    ({"count": 2**31}, "out of range for INT32"),
    ({"text": "a", "id": 1}, "Unable to parse 'id': it must be a string"),
    ({"text": "a", "id": "a\0"}, "'id' must be valid UTF-8 without zero bytes"),
    ({"text": "a", "parameters": [1]}, "Unable to parse 'parameters': it must be an object"),
    ({"text": "a", "parameters": {"x": [1]}}, "parameter 'x' has invalid type"),
    ({"text": "a", "parameters": {"x": None}}, "parameter 'x' has invalid type"),
    ({"text": "a", "triton_x": 1}, "parameter keys starting with 'triton_' are reserved"),
    ({"text": "a", "stop": "\0"}, "parameter 'stop' must be valid UTF-8 without zero bytes"),
    ({"text": "a", "seed": 2**64}, "parameter 'seed' doesn't fit into 64 bits"),
    ([], "it is not an object"),
]


@pytest.mark.parametrize("end", ["generate", "generate_stream"])
async def test_a_wrong_request_is_refused_before_it_reaches_the_model(client, plane, end):
    for document, message in REFUSED:
        assert message in error_of(await client.post(f"{ECHO}/{end}", json=document), 400)
    assert "failed to parse" in error_of(await client.post(f"{ECHO}/{end}", content=b"{"), 400)
    late = await client.post(f"{ECHO}/{end}", json={}, headers={"x-request-timeout-s": "0"})
    assert "must be a number of seconds greater than 0" in error_of(late, 400)
    assert "unknown model: 'none'" in error_of(await client.post(f"/v2/models/none/{end}", json={}), 404)
    assert error_of(await client.post(f"{ECHO}/versions/x/{end}", json={}), 404) == "Not Found"
    assert plane.asked == []


async def test_generate_needs_exactly_one_answer(client, plane):
    for answers in ([], ["a", "b"]):
        plane.answers = [answer(text) for text in answers]
        refusal = error_of(await client.post(f"{ECHO}/generate", json={"text": "a"}), 400)
        assert refusal.startswith("generate expects model to produce exactly 1 response, use generate stream")


async def test_the_empty_final_answer_is_not_counted_and_no_event(client, plane):
    plane.answers = [answer("a", id="i"), answer("", final=True, empty=True)]
    one = await client.post(f"{ECHO}/generate", json={})
    assert one.json() == {"out": "a", "id": "i", "model_name": "echo", "model_version": "1"}
    many = await client.post(f"{ECHO}/generate_stream", json={})
    assert [event["out"] for event in events_of(many)] == ["a"]
    for answers in ([], [answer("", final=True, empty=True)]):
        plane.answers = answers
        answered = await client.post(f"{ECHO}/generate_stream", json={})
        assert (answered.status_code, answered.content) == (200, b"")


async def test_a_stream_is_an_event_for_each_answer_in_order(client, plane):
    plane.answers = [answer(text) for text in ("a", "ü\n\ndata: x", "", "d")]
    answered = await client.post(f"{ECHO}/generate_stream", json={"text": "a"})
    assert answered.status_code == 200
    assert [event["out"] for event in events_of(answered)] == ["a", "ü\n\ndata: x", "", "d"]
    assert plane.ended == [""]


async def test_a_failure_before_the_first_answer_has_its_status(client, plane):
    plane.answers = [UnavailableError("queue full")]
    for end in ("generate", "generate_stream"):
        answered = await client.post(f"{ECHO}/{end}", json={})
        assert error_of(answered, 503) == "queue full"
        assert answered.headers["retry-after"] == "1"


async def test_a_failure_after_the_first_answer_is_the_last_event(client, plane):
    bf16 = InferAnswer("echo", "1", outputs=(Tensor("y", "BF16", (1,), b"\0\0"),))
    no_json = "sending BF16 data via JSON is not supported. Please use the binary data format for output y"
    for problem, text, status in (
        (ModelError("half way"), "half way", 500),
        (KeyError("secret"), "internal error; see the service's log", 500),
        (bf16, no_json, 400),
    ):
        plane.answers = [answer("a"), problem]
        answered = await client.post(f"{ECHO}/generate_stream", json={})
        assert answered.status_code == 200
        first, last = events_of(answered)
        assert (first["out"], last) == ("a", {"error": text})
        plane.answers = [problem]
        assert error_of(await client.post(f"{ECHO}/generate", json={}), status) == text
