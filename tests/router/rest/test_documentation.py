"""The OpenAPI document describes every path and method of the router, with examples that fit their schemas."""

import copy
import importlib.metadata
import json

import jsonschema
import pytest
import schemathesis
from starlette.routing import Route
from starlette.testclient import TestClient

from serve_app.detection.tracks import tracks_of
from serve_app.router.kserve.http import UNSUPPORTED
from serve_app.router.plane import ServedTrack
from serve_app.router.rest.documentation import describe, read_document
from serve_app.router.router import Router
from serve_app.settings import Settings

METHODS = ("get", "post", "put", "patch", "delete", "options", "head", "trace")
# Triton has one repository whatever its name: a path that names one is always refused.
NEVER_WORKS = "namedRepositoryControl"
SETTINGS = Settings()
TRACKS = tracks_of(SETTINGS.detection.models, SETTINGS.baseline_sizes)
DOCUMENT = describe(ServedTrack(track, None) for track in TRACKS)
OPERATIONS = {
    operation["operationId"]: operation
    for item in DOCUMENT["paths"].values()
    for method, operation in item.items()
    if method in METHODS
}


@pytest.fixture(scope="module")
def app(handle):
    """As Ray Serve builds it, with the tracks of the default configuration."""
    owners = {track: "baseline" if track.design.kind == "baseline" else "vision" for track in TRACKS}
    deployments = {"vision": handle(), "baseline": handle()}
    return Router(SETTINGS, owners, deployments, playground=handle()).__serve_build_asgi_app__()


def nodes_of(node, path=()):
    yield path, node
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from nodes_of(value, (*path, key))


def resolve(node):
    """The target of a reference, or the node itself."""
    while isinstance(node, dict) and "$ref" in node:
        found = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node


def as_json_schema(schema):
    """OpenAPI 3.0's one difference from JSON Schema that the document uses; its components come along."""
    whole = copy.deepcopy({**schema, "components": DOCUMENT["components"]})
    for _, node in nodes_of(whole):
        if isinstance(node, dict) and node.get("exclusiveMinimum") is True:
            node["exclusiveMinimum"] = node.pop("minimum")
    return whole


def examples_of(node):
    """The examples of a media type, parameter or header."""
    if "example" in node:
        yield node["example"]
    for example in node.get("examples", {}).values():
        yield example["value"]


def described_examples():
    """Every example in the document, beside its schema."""
    for path, node in nodes_of(DOCUMENT):
        if isinstance(node, dict) and "schema" in node and "properties" not in path:
            for number, example in enumerate(examples_of(node)):
                yield ".".join(map(str, (*path, number))), node["schema"], example


def test_the_document_has_exactly_the_paths_and_methods_that_are_served(app):
    served = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        and route.include_in_schema
        and route.path not in UNSUPPORTED  # described in a sentence: they are always refused
        for method in route.methods - {"HEAD"}
    }
    described = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS}
    assert described == served


def test_the_document_is_what_the_router_answers(app):
    client = TestClient(app)
    assert client.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    assert DOCUMENT["info"]["version"] == importlib.metadata.version("serve_app")
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200


def test_the_document_is_valid_openapi_that_a_tester_can_use():
    schema = schemathesis.openapi.from_dict(copy.deepcopy(DOCUMENT))
    schema.validate()
    walked = [result.ok() for result in schema.get_all_operations()]
    assert len(walked) == len(OPERATIONS)


def test_every_reference_has_a_target_and_every_component_is_used():
    used = {node["$ref"] for _, node in nodes_of(DOCUMENT) if isinstance(node, dict) and "$ref" in node}
    shared = {
        f"#/components/{kind}/{name}"
        for kind, entries in DOCUMENT["components"].items()
        if kind != "securitySchemes"
        for name in entries
    }
    assert used == shared


def test_operations_have_unique_names():
    operations = [o for item in DOCUMENT["paths"].values() for method, o in item.items() if method in METHODS]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert len({operation["summary"] for operation in operations}) == len(operations)


def test_an_operation_describes_its_request_and_its_answers():
    for name, operation in OPERATIONS.items():
        assert operation["summary"], name
        assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}, name
        for media in operation.get("requestBody", {}).get("content", {}).values():
            assert resolve(media["schema"]) or any(examples_of(media)), name
        good = [status for status in operation["responses"] if status.startswith("2")]
        assert bool(good) is (name != NEVER_WORKS), name
        for status, response in operation["responses"].items():
            assert resolve(response)["description"], (name, status)
            if status not in good and not (name == "health" and status == "503"):
                content = resolve(response)["content"]["application/json"]
                schema = "OpenAiError" if "OpenAI" in operation["tags"] else "Error"
                assert content["schema"] == {"$ref": f"#/components/schemas/{schema}"}, (name, status)


def test_the_parameters_of_a_path_are_declared():
    for path, item in DOCUMENT["paths"].items():
        declared = {found["name"] for found in map(resolve, item.get("parameters", [])) if found["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_every_example_fits_its_schema():
    for place, schema, example in described_examples():
        problems = list(jsonschema.Draft202012Validator(as_json_schema(schema)).iter_errors(example))
        assert not problems, place


def test_the_targets_are_those_of_the_configured_tracks():
    sizes = describe(ServedTrack(track, None) for track in tracks_of(["nano", "small"], ["small"]))["paths"]
    (baseline,) = sizes["/pytorch/predict/{target}"]["parameters"]
    (target,) = sizes["/predict/{target}"]["parameters"]
    assert baseline["schema"]["enum"] == ["small"]
    assert target["schema"]["enum"] == [
        f"{size}{suffix}"
        for size in ("nano", "small")
        for suffix in ("", "_end2end", "_gpu_e2e_streaming", "_gpu_e2e", "_gpu_e2e_batch")
    ]
    assert target["example"] in target["schema"]["enum"]


def test_browsers_get_an_icon(app):
    icon = TestClient(app).get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
    assert icon.text.startswith("<svg")


def test_a_playground_that_is_not_served_is_not_described(handle):
    assert set(DOCUMENT["paths"]) - set(describe((), with_playground=False)["paths"]) >= {"/ui"}
    handles = {"vision": handle(), "baseline": handle()}
    without = Router(SETTINGS, {}, handles).__serve_build_asgi_app__()
    assert "/ui" not in TestClient(without).get("/openapi.json").json()["paths"]
    assert TestClient(without).get("/ui").status_code == 404


def test_describing_does_not_change_the_cached_document():
    before = copy.deepcopy(read_document())
    describe(ServedTrack(track, None) for track in TRACKS)
    assert read_document() == before
    assert "parameters" not in read_document()["paths"]["/predict/{target}"]
