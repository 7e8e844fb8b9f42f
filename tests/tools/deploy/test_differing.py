import base64

import pytest

from serve_app.tools.deploy.changing.applying import Trial, left_over
from serve_app.tools.deploy.changing.differing import difference


def thing(kind="ConfigMap", name="c", **content):
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "n"}, **content}


def live(manifest, version="1"):
    bookkeeping = {"resourceVersion": version, "uid": "u", "managedFields": [{}], "generation": 3}
    return manifest | {"metadata": manifest["metadata"] | bookkeeping, "status": {"seen": version}}


def lines(before, after):
    return [line.text for line in difference([Trial(after, before, live(after, "2"))])]


def test_what_only_the_cluster_keeps_makes_no_difference():
    one = thing(data={"a": "1"})
    assert lines(live(one), one) == []
    assert not Trial(one, live(one), live(one, "2")).changes


def test_a_change_shows_both_sides_and_the_object():
    found = lines(live(thing(data={"a": "1"})), thing(data={"a": "2"}))
    assert found[:2] == ["--- live ConfigMap/c", "+++ wanted ConfigMap/c"]
    assert "-  a: '1'" in found
    assert "+  a: '2'" in found


def test_a_text_of_several_lines_differs_by_line():
    found = lines(live(thing(data={"a": "one\ntwo\nthree\n"})), thing(data={"a": "one\nzwei\nthree\n"}))
    assert [line for line in found[2:] if line[0] in "+-"] == ["-    two", "+    zwei"]


def test_a_new_object_is_all_new_and_a_removed_one_all_old():
    new = difference([Trial(thing(), None, None)])
    assert all(line.text.startswith("+") for line in new[3:])
    old = difference([], [live(thing())])
    assert all(line.text.startswith("-") for line in old[3:])


@pytest.mark.parametrize("part", ["data", "stringData"])
def test_a_secrets_values_are_never_shown_but_seen_to_change(part):
    def secret(key, word):
        value = base64.b64encode(word.encode()).decode() if part == "data" else word
        return thing("Secret", **{part: {key: value, "same": "c2FtZQ=="}})

    before, after = secret("token", "hf_before"), secret("token", "hf_after")
    text = "\n".join(lines(live(before), after))
    assert "-  token: '*** (value before)'" in text
    assert "+  token: '*** (value after)'" in text
    assert "same: '*** (unchanged)'" in text
    for hidden in ("hf_before", "hf_after", "c2FtZQ", base64.b64encode(b"hf_before").decode()):
        assert hidden not in text


def test_a_secret_that_kubectl_applied_does_not_leak_by_its_annotation():
    secret = thing("Secret", data={"token": "aGY="})
    secret["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": '{"data": "aGY="}'}
    assert "aGY=" not in "\n".join(lines(live(secret), thing("Secret", data={"token": "bmV1"})))


def test_what_is_wanted_no_more_is_found_by_group_and_name_last_first():
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    budget = {
        "apiVersion": "policy/v1beta1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "n"},
    }
    newer = budget | {"apiVersion": "policy/v1"}
    applied = [space, thing(name="a"), thing(name="b"), budget]
    assert left_over(applied, [newer]) == [thing(name="b"), thing(name="a")]
