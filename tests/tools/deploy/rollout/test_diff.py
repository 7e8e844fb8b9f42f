import base64

import pytest

from serve_app.tools.deploy.rollout.apply import DryRun, obsolete
from serve_app.tools.deploy.rollout.diff import diff_lines


def thing(kind="ConfigMap", name="c", **content):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "n"}, **content}


def live(manifest, version="1"):
    bookkeeping = {"resourceVersion": version, "uid": "u", "managedFields": [{}], "generation": 3}
    return manifest | {"metadata": manifest["metadata"] | bookkeeping, "status": {"seen": version}}


def lines(before, after):
    return [line.text for line in diff_lines([DryRun(after, before, live(after, "2"))])]


def test_what_only_the_cluster_keeps_makes_no_diff_lines():
    one = thing(data={"a": "1"})
    assert lines(live(one), one) == []
    assert not DryRun(one, live(one), live(one, "2")).changes


def test_a_change_shows_the_object_and_both_values():
    found = lines(live(thing(data={"a": "1"})), thing(data={"a": "2"}))
    assert found[:2] == ["--- live ConfigMap/c", "+++ new ConfigMap/c"]
    assert "-  a: '1'" in found
    assert "+  a: '2'" in found
    before, after = live(thing(data={"a": "1"})), thing(data={"a": "2"})
    styles = {line.text[0]: line.style for line in diff_lines([DryRun(after, before, after)])[2:]}
    assert styles == {"@": "cyan", " ": "", "-": "red", "+": "green"}


def test_text_is_compared_line_by_line():
    found = lines(live(thing(data={"a": "one\ntwo\nthree\n"})), thing(data={"a": "one\nzwei\nthree\n"}))
    assert [line for line in found[2:] if line[0] in "+-"] == ["-    two", "+    zwei"]


def test_new_and_removed_objects_are_shown_whole():
    new = diff_lines([DryRun(thing(), None, None)])
    assert all(line.text.startswith("+") for line in new[3:])
    old = diff_lines([], [live(thing())])
    assert all(line.text.startswith("-") for line in old[3:])


@pytest.mark.parametrize("part", ["data", "stringData"])
def test_values_of_secrets_are_masked(part):
    def secret(key, word):
        value = base64.b64encode(word.encode()).decode() if part == "data" else word
        return thing("Secret", **{part: {key: value, "same": "c2FtZQ=="}})

    before, after = secret("token", "hf_before"), secret("token", "hf_after")
    text = "\n".join(lines(live(before), after))
    assert "-  token: '*** (old value)'" in text
    assert "+  token: '*** (new value)'" in text
    assert "same: '*** (unchanged)'" in text
    for hidden in ("hf_before", "hf_after", "c2FtZQ", base64.b64encode(b"hf_before").decode()):
        assert hidden not in text


def test_kubectls_annotation_does_not_show_a_secret():
    secret = thing("Secret", data={"token": "aGY="})
    secret["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": '{"data": "aGY="}'}
    assert "aGY=" not in "\n".join(lines(live(secret), thing("Secret", data={"token": "bmV1"})))


def test_obsolete_objects_are_found_by_group_and_name_last_first():
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    budget = {
        "apiVersion": "policy/v1beta1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "n"},
    }
    newer = budget | {"apiVersion": "policy/v1"}
    applied = [space, thing(name="a"), thing(name="b"), budget]
    assert obsolete(applied, [newer]) == [thing(name="b"), thing(name="a")]
