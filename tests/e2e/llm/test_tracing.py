"""One request is one trace, from the caller's context to the engine, in a real collector's words."""

import secrets

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from tests.e2e.service import SHAPES

PICTURE = SHAPES.read_bytes()
COLLECTED_WITHIN_S = 60
CHAT = {"model": "demo-llm", "messages": [{"role": "user", "content": "What is a replica?"}], "temperature": 0}
STAGES = {"queue", "compute input", "compute infer", "compute output"}


@pytest.fixture
def context():
    """A caller's own span: trace, span, and the header that tells them."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-01", "x-request-id": f"request-{span}"}


@pytest.fixture
def collected(spans, wait_for):
    """The spans of a trace, once one of a name has come and all have their parents."""

    def read(context, *names):
        trace, root, _ = context
        wait_for(
            lambda: set(names) <= {span.name for span in spans[trace]} and not orphans(spans[trace], root),
            COLLECTED_WITHIN_S,
            f"{names} and what is above them",
        )
        return spans[trace]

    return read


def orphans(found, root):
    known = {span.span_id.hex() for span in found} | {root}
    return [span.name for span in found if span.parent_span_id.hex() not in known]


def above(found, span):
    """Names of a span's parents up to the caller."""
    by_id = {one.span_id: one for one in found}
    names = []
    while span := by_id.get(span.parent_span_id):
        names.append(span.name)
    return names


def named(found, name):
    return next(span for span in found if span.name == name)


def attributes(span):
    return {one.key: one.value.string_value for one in span.attributes}


def require_stages(found, model):
    """What Triton did lies inside of what the replica did, stage after stage."""
    whole = named(found, f"triton {model}")
    stages = sorted(
        (span for span in found if span.parent_span_id == whole.span_id), key=lambda s: s.start_time_unix_nano
    )
    assert {span.name for span in stages} == STAGES
    edges = [edge for span in stages for edge in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (whole.start_time_unix_nano, whole.end_time_unix_nano)
    around = next(span for span in found if span.span_id == whole.parent_span_id)
    assert around.start_time_unix_nano <= edges[0] < edges[-1] <= around.end_time_unix_nano
    return whole


def test_a_picture_is_traced_from_the_caller_to_tritons_stages(service, context, collected):
    answer = httpx.post(f"{service.url}/predict/nano", content=PICTURE, headers=context[2], timeout=60)
    assert answer.status_code == 200
    found = collected(context, "triton yolo_nano", *STAGES)
    whole = require_stages(found, "yolo_nano")
    assert attributes(whole)["triton.request_id"] == context[2]["x-request-id"]
    parents = above(found, whole)
    assert "vision" in parents[0]
    assert "router" in parents[-1]


def test_an_ensemble_is_traced_model_by_model(service, context, collected):
    picture = np.frombuffer(PICTURE, np.uint8)[None]
    given = grpcclient.InferInput("encoded", picture.shape, "UINT8")
    given.set_data_from_numpy(picture)
    client = grpcclient.InferenceServerClient(service.grpc_host)
    client.infer("yolo_nano_gpu_e2e", [given], headers=context[2], request_id="mine")
    client.close()
    found = collected(context, "triton yolo_preprocess", "triton yolo_nano_engine_balanced")
    first, second = (require_stages(found, name) for name in ("yolo_preprocess", "yolo_nano_engine_balanced"))
    assert first.start_time_unix_nano < second.start_time_unix_nano
    assert attributes(first)["triton.request_id"] == "mine"
    assert "router" in above(found, first)[-1]


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"stream": True}),
        ("/v2/models/demo-llm/generate", {"text_input": "What is a replica?", "temperature": 0, "max_tokens": 40}),
    ],
)
def test_a_language_models_request_is_traced_into_vllm(service, context, collected, path, document):
    assert httpx.post(f"{service.url}{path}", json=document, headers=context[2], timeout=60).status_code == 200
    found = collected(context, "llm_request")
    engine = named(found, "llm_request")
    tokens = {one.key: one.value.int_value for one in engine.attributes}["gen_ai.usage.completion_tokens"]
    assert tokens > 5
    parents = above(found, engine)
    assert "demo-llm" in parents[0]
    assert "router" in parents[-1]
    described = attributes(engine)
    assert context[2]["x-request-id"] in described["gen_ai.request.id"]
    assert not [value for span in found for value in attributes(span).values() if "replica?" in value], "no prompt"


def test_a_request_that_the_caller_does_not_sample_leaves_no_trace(service, context, collected, spans):
    trace, span, _ = context
    headers = {"traceparent": f"00-{trace}-{span}-00"}
    assert httpx.post(f"{service.url}/predict/nano", content=PICTURE, headers=headers, timeout=60).is_success
    sampled = (secrets.token_hex(16), span, None)
    later = {"traceparent": f"00-{sampled[0]}-{span}-01"}
    httpx.post(f"{service.url}/predict/nano", content=PICTURE, headers=later, timeout=60)
    collected(sampled, "triton yolo_nano")
    assert spans[trace] == []
