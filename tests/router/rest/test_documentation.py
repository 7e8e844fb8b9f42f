"""The document says what the router does: every path and method, in valid OpenAPI, with examples that are true."""

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
# Triton has one repository whatever its name: what names another is refused, always.
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


class Handle:
    """Stands in for a deployment that nobody asks anything."""

    def options(self, **_):
        return self


@pytest.fixture(scope="module")
def app():
    """As Ray Serve builds it, with the tracks of the default configuration."""
    owners = {track: "baseline" if track.design.kind == "baseline" else "vision" for track in TRACKS}
    deployments = {"vision": Handle(), "baseline": Handle()}
    return Router(SETTINGS, owners, deployments, playground=Handle()).__serve_build_asgi_app__()


def nodes_of(node, path=()):
    yield path, node
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from nodes_of(value, (*path, key))


def resolve(node):
    """What a node refers to, or the node itself."""
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
                yield pytest.param(node["schema"], example, id=".".join(map(str, (*path, number))))


def test_the_document_has_every_path_and_method_and_no_other(app):
    served = {
        (route.path_format, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        and route.include_in_schema
        and route.path not in UNSUPPORTED  # which a sentence says: they never work
        for method in route.methods - {"HEAD"}
    }
    described = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item if method in METHODS}
    assert described == served


def test_the_document_is_what_the_router_answers(app):
    client = TestClient(app)
    assert client.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200


def test_it_is_valid_openapi_that_a_tester_can_walk_through():
    schema = schemathesis.openapi.from_dict(copy.deepcopy(DOCUMENT))
    schema.validate()
    walked = [result.ok() for result in schema.get_all_operations()]
    assert len(walked) == len(OPERATIONS)


def test_every_reference_leads_somewhere_and_everything_shared_is_used():
    used = {node["$ref"] for _, node in nodes_of(DOCUMENT) if isinstance(node, dict) and "$ref" in node}
    shared = {
        f"#/components/{kind}/{name}"
        for kind, entries in DOCUMENT["components"].items()
        if kind != "securitySchemes"
        for name in entries
    }
    assert used == shared


def test_operations_have_names_of_their_own():
    operations = [o for item in DOCUMENT["paths"].values() for method, o in item.items() if method in METHODS]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert len({operation["summary"] for operation in operations}) == len(operations)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_goes_in_and_what_comes_out(name):
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    for media in operation.get("requestBody", {}).get("content", {}).values():
        assert resolve(media["schema"]) or any(examples_of(media))
    good = [status for status in operation["responses"] if status.startswith("2")]
    assert bool(good) is (name != NEVER_WORKS)
    for status, response in operation["responses"].items():
        assert resolve(response)["description"], status
        if status not in good and not (name == "health" and status == "503"):
            content = resolve(response)["content"]["application/json"]
            schema = "OpenAiError" if "OpenAI" in operation["tags"] else "Error"
            assert content["schema"] == {"$ref": f"#/components/schemas/{schema}"}, status


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_a_paths_parameters_are_declared(path):
    item = DOCUMENT["paths"][path]
    declared = {found["name"] for found in map(resolve, item.get("parameters", [])) if found["in"] == "path"}
    assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


@pytest.mark.parametrize(("schema", "example"), list(described_examples()))
def test_an_example_is_what_its_schema_says(schema, example):
    jsonschema.validate(example, as_json_schema(schema), jsonschema.Draft202012Validator)


def test_a_reader_can_choose_from_the_configured_tracks():
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


def test_browsers_get_the_icon_that_they_ask_for(app):
    icon = TestClient(app).get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
    assert icon.text.startswith("<svg")


def test_a_playground_that_is_not_served_is_not_described():
    assert set(DOCUMENT["paths"]) - set(describe((), with_playground=False)["paths"]) >= {"/ui"}
    handles = {"vision": Handle(), "baseline": Handle()}
    without = Router(SETTINGS, {}, handles).__serve_build_asgi_app__()
    assert "/ui" not in TestClient(without).get("/openapi.json").json()["paths"]
    assert TestClient(without).get("/ui").status_code == 404


def test_describing_leaves_the_document_that_is_kept_as_it_is():
    before = copy.deepcopy(read_document())
    describe(ServedTrack(track, None) for track in TRACKS)
    assert read_document() == before
    assert "parameters" not in read_document()["paths"]["/predict/{target}"]


def test_the_document_has_the_packages_version():
    assert DOCUMENT["info"]["version"] == importlib.metadata.version("serve_app")
