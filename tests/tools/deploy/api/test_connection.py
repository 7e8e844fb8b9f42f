import pytest
import yaml

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.deploy.api.connection import connect

CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {"token": "very-secret"}}],
    "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
}


@pytest.fixture
def kubeconfig(tmp_path):
    path = tmp_path / "config"

    def write(**changes):
        path.write_text(yaml.safe_dump(CONFIG | changes))
        return path

    return write


def test_a_missing_kubeconfig_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no kubeconfig at .*/nothing: .*aws eks update-kubeconfig"):
        connect(tmp_path / "nothing")


def test_a_context_is_the_current_one_or_the_named_one(kubeconfig):
    path = kubeconfig(**{"current-context": ""})
    connection = connect(path, "one")
    assert (connection.context, connection.server) == ("one", "http://127.0.0.1:1")
    for context, message in (
        (None, "no current context: pass --context; known: one"),
        ("two", "no context 'two'; known: one"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            connect(path, context)


def test_a_file_that_is_no_kubeconfig_is_refused(kubeconfig, tmp_path):
    path = tmp_path / "config"
    for content in ("", "just text", "{a: [", "current-context: 1\n", yaml.safe_dump(CONFIG | {"clusters": []})):
        path.write_text(content)
        with pytest.raises(ConfigurationError, match=str(path)):
            connect(path)


def test_an_unreachable_api_is_named_without_the_token(kubeconfig):
    connection = connect(kubeconfig())
    with pytest.raises(UnavailableError) as caught:
        connection.request("GET", "/version")
    assert "can't reach http://127.0.0.1:1: " in caught.value.message
    assert "'one'" in caught.value.message
    assert "very-secret" not in caught.value.message


def test_each_status_becomes_an_error_with_a_fix(kubeconfig):
    connection = connect(kubeconfig())
    for status, body, kind, message in (
        (401, b'{"message": "Unauthorized"}', "UnauthorizedError", "expired or invalid; log in again"),
        (403, b'{"message": "User \\"system:anonymous\\" cannot list"}', "UnauthorizedError", "log in again"),
        (
            403,
            b'{"message": "User \\"eve\\" cannot list pods"}',
            "ForbiddenError",
            'User "eve" cannot list pods; ask for',
        ),
        (404, b'{"message": "pods \\"x\\" not found"}', "NotFoundError", 'pods "x" not found'),
        (409, b'{"message": "Apply failed with 1 conflict"}', "ConflictError", "Apply failed with 1 conflict"),
        (422, b'{"message": "spec.x: Invalid value"}', "ConfigurationError", "rejected by the cluster: spec.x"),
        (500, b'{"message": ".spec.x: field not declared in schema"}', "ConfigurationError", "its CRDs may be older"),
        (500, b"not json\nat all", "UnavailableError", "answered 500: at all"),
        (503, b"", "UnavailableError", "answered 503: status 503"),
    ):
        error = connection.error(status, body)
        assert type(error).__name__ == kind
        assert message in error.message
