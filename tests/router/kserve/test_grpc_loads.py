"""Loads and unloads over gRPC: what they may bring with them, and who may ask for them."""

import pytest
from grpc import StatusCode

from serve_app.router.kserve.service import messages as pb

CHANGES = ("RepositoryModelLoad", "RepositoryModelUnload")


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("right\n")
    return path


def load(model="echo", parameters=(), **fields):
    made = pb.RepositoryModelLoadRequest(model_name=model, **fields)
    for name, kind, value in parameters:
        made.parameters[name].SetInParent()
        if kind:
            setattr(made.parameters[name], kind, value)
    return made


async def test_a_load_brings_a_configuration_as_text_and_files_as_bytes(ask, plane):
    given = [("config", "string_param", '{"name": "grün"}'), ("file:1/model.py", "bytes_param", bytes(range(256))),
             ("file:2/empty", "bytes_param", b"")]  # fmt: skip
    answer, code, _ = await ask("RepositoryModelLoad", load(parameters=given))
    assert (answer.ByteSize(), code) == (0, None)
    await ask("RepositoryModelLoad", load())
    assert plane.changes == [
        ("load", "echo", {"config": '{"name": "grün"}', "file:1/model.py": bytes(range(256)), "file:2/empty": b""}),
        ("load", "echo", {}),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "value", "message"),
    [
        ("config", "bytes_param", b"{}", "load parameter 'config' must be a string_param"),
        ("config", "bool_param", True, "load parameter 'config' must be a string_param"),
        ("config", None, None, "load parameter 'config' must be a string_param"),
        ("file:1/m", "string_param", "YQ==", "load parameter 'file:1/m' must be a bytes_param"),
        ("file:1/m", "int64_param", 1, "load parameter 'file:1/m' must be a bytes_param"),
        ("file:1/m", None, None, "load parameter 'file:1/m' must be a bytes_param"),
        ("file", "bytes_param", b"", "unknown load parameter 'file'; known are 'config' and 'file:<path>'"),
        ("Config", "string_param", "{}", "unknown load parameter 'Config'; known are 'config' and 'file:<path>'"),
        ("file:\0", "bytes_param", b"", "a parameter's name must be valid UTF-8 without zero bytes"),
    ],
)
async def test_a_parameter_of_a_load_that_makes_no_sense_is_named(ask, plane, name, kind, value, message):
    _, *status = await ask("RepositoryModelLoad", load(parameters=[(name, kind, value)]))
    assert status == [StatusCode.INVALID_ARGUMENT, message]
    assert plane.changes == []


@pytest.mark.parametrize("dependents", [None, False, True])
async def test_an_unload_takes_its_dependents_along_where_it_says_so(ask, plane, dependents):
    made = pb.RepositoryModelUnloadRequest(model_name="echo")
    if dependents is not None:
        made.parameters["unload_dependents"].bool_param = dependents
    answer, code, _ = await ask("RepositoryModelUnload", made)
    assert (answer.ByteSize(), code) == (0, None)
    assert plane.changes == [("unload", "echo", bool(dependents))]


@pytest.mark.parametrize("method", CHANGES)
async def test_there_is_one_repository_and_a_model_is_named_by_text(ask, plane, method):
    _, *status = await ask(method, model_name="echo", repository_name="other")
    assert status == [StatusCode.UNIMPLEMENTED, "'repository_name' specification is not supported"]
    _, *status = await ask(method, model_name="a\0b")
    assert status == [StatusCode.INVALID_ARGUMENT, "'model_name' must be valid UTF-8 without zero bytes"]
    assert plane.changes == []


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({}, StatusCode.UNAUTHENTICATED),
        ({"authorization": "Basic right"}, StatusCode.UNAUTHENTICATED),
        ({"x_api_key": "right"}, StatusCode.UNAUTHENTICATED),
        ({"authorization": "Bearer wrong"}, StatusCode.PERMISSION_DENIED),
        ({"authorization": "Bearer "}, StatusCode.PERMISSION_DENIED),
        ({"authorization": "Bearer right"}, None),
        ({"authorization": "bearer right"}, None),
    ],
)
async def test_changes_need_the_admin_key(ask, plane, key_file, method, metadata, code):
    _, found, details = await ask(method, key_file=key_file, metadata=metadata, model_name="echo")
    assert found is code
    assert len(plane.changes) == (code is None)
    assert "right" not in (details or "")


async def test_a_caller_without_the_key_learns_nothing_of_its_mistakes(ask, key_file):
    for made in (load(repository_name="r"), load(parameters=[("x", None, None)]), load("none")):
        assert (await ask("RepositoryModelLoad", made, key_file=key_file))[1] is StatusCode.UNAUTHENTICATED


async def test_what_changes_nothing_needs_no_key(ask, key_file):
    for method in ("ServerReady", "RepositoryIndex", "ModelStatistics"):
        assert (await ask(method, key_file=key_file))[1] is None


async def test_a_configuration_is_text_that_can_be_passed_on(ask, plane):
    _, code, _ = await ask("RepositoryModelLoad", load(parameters=[("config", "string_param", "{\0}")]))
    assert (code, plane.changes) == (StatusCode.INVALID_ARGUMENT, [])


@pytest.mark.parametrize(("kind", "value"), [("string_param", "true"), ("int64_param", 1)])
async def test_whether_an_unload_takes_its_dependents_along_is_true_or_false(ask, plane, kind, value):
    made = pb.RepositoryModelUnloadRequest(model_name="echo")
    setattr(made.parameters["unload_dependents"], kind, value)
    _, code, _ = await ask("RepositoryModelUnload", made)
    assert (code, plane.changes) == (StatusCode.INVALID_ARGUMENT, [])
