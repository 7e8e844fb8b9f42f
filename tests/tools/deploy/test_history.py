import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.changing.history import History, config_map_of, revision_of

TARGET = Target("serve-app", "default")
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "hf_hidden"}}


def manifests(word):
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"word": word}}, SECRET]


@pytest.fixture
def history(kubernetes):
    return History(Objects(connect(kubernetes.kubeconfig)), TARGET)


def applied(history, word, returns_to=None):
    revision = history.begin(manifests(word), "local-cpu", "up", returns_to)
    history.mark(revision, "applied")
    return revision


def test_a_revision_comes_back_as_it_was_without_its_secrets(history):
    revision = applied(history, "one")
    (found,) = history.revisions()
    assert found.manifests == (manifests("one")[0],)
    assert (found.number, found.scenario, found.why, found.state) == (1, "local-cpu", "up", "applied")
    assert "hf_hidden" not in str(config_map_of(revision, TARGET))


def test_the_same_again_is_no_new_revision(history):
    applied(history, "one")
    applied(history, "one")
    applied(history, "two")
    applied(history, "one")
    assert [one.number for one in history.revisions()] == [1, 2, 3]


def test_what_has_served_stays_so(history):
    revision = history.begin(manifests("one"), "local-cpu", "up")
    history.mark(revision, "served")
    again = history.begin(manifests("one"), "local-cpu", "up")
    history.mark(again, "applied")
    assert history.revisions()[0].state == "served"


def test_one_that_broke_off_is_not_returned_to(history):
    applied(history, "one")
    history.begin(manifests("two"), "local-cpu", "up")
    applied(history, "three")
    assert history.to_return_to().number == 1
    assert history.to_return_to(2).number == 2, "unless it is asked for"


def test_a_return_is_followed_by_one_further_back(history):
    for word in ("one", "two", "three"):
        applied(history, word)
    assert history.to_return_to().number == 2
    applied(history, "two", returns_to=2)
    assert history.to_return_to().number == 1


def test_what_served_is_returned_to_before_what_was_only_applied(history):
    history.mark(applied(history, "one"), "served")
    applied(history, "two")
    applied(history, "three")
    assert history.to_return_to().number == 1
    assert history.to_return_to(2).number == 2, "unless it is asked for"


def test_the_last_that_served_is_kept_however_many_failed_since(history):
    for word in ("one", "two"):
        history.mark(applied(history, word), "served")
    for number in range(12):
        applied(history, f"failed {number}")
    numbers = [one.number for one in history.revisions()]
    assert numbers == [2, *range(6, 15)]
    assert history.to_return_to().number == 2


def test_a_config_map_that_is_no_revision_is_named(history):
    broken = config_map_of(applied(history, "one"), TARGET) | {"binaryData": {"manifests.json.gz": "AAAA"}}
    with pytest.raises(ConfigurationError, match="ConfigMap serve-app-revision-1 can't be read as a revision"):
        revision_of(broken)
