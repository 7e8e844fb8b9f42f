"""scripts/keys: keys that the service takes, one file for several writers, and mistakes in one line."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app.keys.file import KeyFile, read_keys
from serve_app.tools.keys.command import main


@pytest.fixture
def keys(tmp_path, capsys):
    """Run the command on one file: status, output, errors."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main("", [*arguments, "--file", str(tmp_path / "keys.yaml")])
        return ended.value.code, *capsys.readouterr()

    run.path = tmp_path / "keys.yaml"
    return run


def test_a_created_key_is_shown_once_taken_by_the_service_and_gone_once_revoked(keys):
    limits = ("--models", "yolo_*,demo-llm", "--requests-per-minute", "60", "--concurrent-requests", "4")
    status, key, about = keys("create", "team-a", "--scopes", "infer,admin", *limits)
    assert status == 0
    assert "'team-a'" in about
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert key.strip() not in keys.path.read_text()
    found = KeyFile(keys.path).find(key.strip())
    assert (found.name, found.scopes, found.models) == ("team-a", ("infer", "admin"), ("yolo_*", "demo-llm"))
    assert (found.requests_per_minute, found.tokens_per_minute, found.concurrent_requests) == (60, None, 4)
    _, other, _ = keys("create", "team-b")
    assert other != key
    status, listed, _ = keys("list")
    assert "team-a" in listed
    assert found.sha256 not in listed
    assert [row["name"] for row in json.loads(keys("list", "--json")[1])] == ["team-a", "team-b"]
    keys.path.chmod(0o640)
    assert keys("revoke", "team-a")[0] == 0
    assert KeyFile(keys.path).find(key.strip()) is None
    assert KeyFile(keys.path).find(other.strip())
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o640


def test_mistakes_are_one_line_and_change_nothing(keys):
    keys("create", "team-a")
    before = keys.path.read_bytes()
    for arguments, message in (
        (("create", "team-a"), "has a key named 'team-a' already; revoke it first"),
        (("create", "2 teams"), "name: String should match"),
        (("create", "b", "--scopes", "root"), "scopes.0"),
        (("create", "b", "--requests-per-minute", "0"), "0 is not at least 1"),
        (("revoke", "team"), "has no key named 'team'; did you mean 'team-a'?"),
        (("revoke", "x"), "known: team-a"),
    ):
        status, _, errors = keys(*arguments)
        assert status == 2
        assert message in errors
        assert len(errors.strip().splitlines()) == 1
    assert keys.path.read_bytes() == before
    keys.path.write_text("keys: {")
    assert keys("create", "b")[0] == 1
    assert keys.path.read_text() == "keys: {"


def test_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "keys.yaml"

    def create(number):
        with pytest.raises(SystemExit):
            main("", ["create", f"team-{number}", "--file", str(path)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(24)))
    assert len(read_keys(path).keys) == 24
    assert [one.name for one in tmp_path.iterdir()] == ["keys.yaml"]
