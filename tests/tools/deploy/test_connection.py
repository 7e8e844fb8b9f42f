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


def test_a_missing_kubeconfig_is_named_with_what_writes_one(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no kubeconfig at .*/nothing: .*aws eks update-kubeconfig"):
        connect(tmp_path / "nothing")


def test_a_context_that_is_named_needs_no_current_one(kubeconfig):
    path = kubeconfig(**{"current-context": ""})
    connection = connect(path, "one")
    assert (connection.context, connection.server) == ("one", "http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="has no current context: name one with --context; there are one"):
        connect(path)
    with pytest.raises(ConfigurationError, match="no context 'two'; there are one"):
        connect(path, "two")


@pytest.mark.parametrize("content", ["", "just text", "{a: [", "current-context: 1\n"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path, content):
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=str(path)):
        connect(path)


def test_an_unknown_context_is_named_with_those_there_are(kubeconfig):
    with pytest.raises(ConfigurationError, match="no context 'two'; there are one"):
        connect(kubeconfig(), "two")


def test_a_context_of_a_cluster_that_is_not_there_is_refused(kubeconfig):
    with pytest.raises(ConfigurationError, match="config"):
        connect(kubeconfig(clusters=[]))


def test_an_api_that_does_not_answer_is_named_and_no_token_with_it(kubeconfig):
    connection = connect(kubeconfig())
    with pytest.raises(UnavailableError) as caught:
        connection.request("GET", "/version")
    assert "can't reach http://127.0.0.1:1: " in caught.value.message
    assert "'one'" in caught.value.message
    assert "very-secret" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (401, b'{"message": "Unauthorized"}', "UnauthorizedError", "expired or wrong; log in again"),
        (403, b'{"message": "User \\"system:anonymous\\" cannot list"}', "UnauthorizedError", "log in again"),
        (
            403,
            b'{"message": "User \\"eve\\" cannot list pods"}',
            "ForbiddenError",
            'User "eve" cannot list pods; ask for',
        ),
        (404, b'{"message": "pods \\"x\\" not found"}', "NotFoundError", 'pods "x" not found'),
        (409, b'{"message": "Apply failed with 1 conflict"}', "ConfigurationError", "Apply failed with 1 conflict"),
        (422, b'{"message": "spec.x: Invalid value"}', "ConfigurationError", "the cluster refuses it: spec.x"),
        (500, b'{"message": ".spec.x: field not declared in schema"}', "ConfigurationError", "are the CRDs older"),
        (500, b"not json\nat all", "UnavailableError", "answers 500: at all"),
        (503, b"", "UnavailableError", "answers 503: status 503"),
    ],
)
def test_an_answer_becomes_the_error_that_says_what_to_do(kubeconfig, status, body, kind, message):
    error = connect(kubeconfig()).error(status, body)
    assert type(error).__name__ == kind
    assert message in error.message
