import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.rollout.history import History, config_map_of, revision_of

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


def test_a_revision_is_stored_without_secrets(history):
    revision = applied(history, "one")
    (found,) = history.revisions()
    assert found.manifests == (manifests("one")[0],)
    assert (found.number, found.scenario, found.why, found.state) == (1, "local-cpu", "up", "applied")
    assert "hf_hidden" not in str(config_map_of(revision, TARGET))


def test_the_same_manifests_again_are_no_new_revision(history):
    applied(history, "one")
    applied(history, "one")
    applied(history, "two")
    applied(history, "one")
    assert [one.number for one in history.revisions()] == [1, 2, 3]


def test_a_served_revision_stays_served(history):
    revision = history.begin(manifests("one"), "local-cpu", "up")
    history.mark(revision, "served")
    again = history.begin(manifests("one"), "local-cpu", "up")
    history.mark(again, "applied")
    assert history.revisions()[0].state == "served"


def test_a_rollback_skips_an_interrupted_revision(history):
    applied(history, "one")
    history.begin(manifests("two"), "local-cpu", "up")
    applied(history, "three")
    assert history.find().number == 1
    assert history.find(2).number == 2


def test_a_second_rollback_goes_further_back(history):
    for word in ("one", "two", "three"):
        applied(history, word)
    assert history.find().number == 2
    applied(history, "two", returns_to=2)
    assert history.find().number == 1


def test_a_rollback_prefers_a_revision_that_served(history):
    history.mark(applied(history, "one"), "served")
    applied(history, "two")
    applied(history, "three")
    assert history.find().number == 1
    assert history.find(2).number == 2


def test_ten_revisions_are_kept_and_the_last_that_served(history):
    for word in ("one", "two"):
        history.mark(applied(history, word), "served")
    for number in range(12):
        applied(history, f"failed {number}")
    numbers = [one.number for one in history.revisions()]
    assert numbers == [2, *range(6, 15)]
    assert history.find().number == 2


def test_an_invalid_revision_is_refused(history):
    broken = config_map_of(applied(history, "one"), TARGET) | {"binaryData": {"manifests.json.gz": "AAAA"}}
    with pytest.raises(ConfigurationError, match="ConfigMap serve-app-revision-1 isn't a valid revision"):
        revision_of(broken)
