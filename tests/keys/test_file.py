"""The keys file: what it may say, who is found in it, and what happens when it changes or breaks."""

import os

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.keys.file import KeyFile, digest_of, read_keys

NEVER = 1e6  # the tests call refresh themselves


@pytest.fixture
def write(tmp_path):
    path, times = tmp_path / "keys.yaml", iter(range(1, 100))

    def write(*keys):
        path.write_text(keys[0] if keys and isinstance(keys[0], str) else yaml.safe_dump({"keys": list(keys)}))
        at = next(times)
        os.utime(path, (at, at))
        return path

    return write


def entry(name="team", key="sa-one", **limits):
    return {"name": name, "sha256": digest_of(key), **limits}


def test_a_key_is_found_by_what_it_is_and_never_by_its_hash(write):
    file = KeyFile(write(entry(requests_per_minute=5), entry("other", "schlüssel", scopes=["admin"])), NEVER)
    assert file.find("sa-one").name == "team"
    assert file.find("sa-one").scopes == ("infer", "llm")
    assert file.find("schlüssel").scopes == ("admin",)
    for wrong in ("", "sa-on", "sa-one ", "SA-ONE", digest_of("sa-one"), "\0", "\udcff"):
        assert file.find(wrong) is None


def test_what_a_file_must_not_say(write):
    for content, message in {
        "keys: [": "not valid YAML",
        "keys: [{name: 2001-99-99}]": "not valid YAML",
        "keys: [{name: !!int ''}]": "not valid YAML",
        "keys: " + "[" * 100_000 + "]" * 100_000: "not valid YAML",
        "keys: [{name: a}]": "keys.0.sha256: Field required",
        "keys: [{name: a, sha256: abc}]": "keys.0.sha256: String should match",
        "- a": "valid dictionary",
        "kyes: []": "did you mean 'keys'",
        yaml.safe_dump({"keys": [entry(), entry()]}): "two keys have the name 'team'",
        yaml.safe_dump({"keys": [entry(), entry("b")]}): "two keys have the sha256",
        yaml.safe_dump({"keys": [entry(scopes=["root"])]}): "scopes.0",
        yaml.safe_dump({"keys": [entry(scopes=[])]}): "scopes",
        yaml.safe_dump({"keys": [entry(models=[])]}): "models",
        yaml.safe_dump({"keys": [entry(requests_per_minute=0)]}): "requests_per_minute",
        yaml.safe_dump({"keys": [entry(request_per_minute=1)]}): "did you mean 'requests_per_minute'",
    }.items():
        with pytest.raises(ConfigurationError) as caught:
            read_keys(write(content))
        assert message in caught.value.message
        assert digest_of("sa-one") not in caught.value.message
    with pytest.raises(ConfigurationError, match="No such file"):
        read_keys(write("").with_name("none"))


def test_a_changed_file_counts_and_a_broken_one_leaves_the_last_in_force(write, caplog):
    file = KeyFile(write(entry()), NEVER)
    team = file.find("sa-one")
    write(entry(), entry("second", "sa-two"))
    file.refresh()
    assert file.find("sa-two").name == "second"
    path = write("keys: [")
    for _ in range(3):
        file.refresh()
    assert file.find("sa-two")
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    path.unlink()
    file.refresh()
    assert file.is_in_force(team)
    write(entry("second", "sa-two"))
    file.refresh()
    assert file.find("sa-one") is None
    assert not file.is_in_force(team)


def test_the_thread_reads_the_file_again(write):
    file = KeyFile(write(entry()), 0.01)
    write(entry("second", "sa-two"))
    for _ in range(500):
        if file.find("sa-two"):
            break
        file._ended.wait(0.01)
    assert file.find("sa-two")
    file.close()
