"""The admin key: who is allowed, who is refused, and changes of its file."""

import os

import pytest
from starlette.datastructures import Headers

from serve_app.errors import ConfigurationError, ForbiddenError, UnauthorizedError
from serve_app.keys.admin import AdminKey


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "key"
    path.write_text("right\n")
    os.utime(path, (1, 1))
    return path


def rotate(path, text, at):
    path.write_text(text)
    os.utime(path, (at, at))


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def require_refused(admin, key):
    with pytest.raises(ForbiddenError) as caught:
        admin.require(bearer(key))
    assert caught.value.message == "the given key is not the admin key"


def test_without_a_file_everyone_is_allowed():
    for headers in ({}, bearer("anything"), {"authorization": "Basic x"}):
        AdminKey(None).require(headers)


def test_only_the_right_key_is_allowed(file):
    admin = AdminKey(file)
    for text in ("Bearer right", "bearer right", "BEARER  right ", "Bearer \tright"):
        admin.require({"authorization": text})
    admin.require(Headers({"Authorization": "Bearer right"}))
    for key in ("wrong", "righ", "right2", "Right", "", " ", "right right", "right\0", "ä", "b'right'"):
        require_refused(admin, key)
    for text in (None, "", "right", "Basic x", "Bearer"):
        with pytest.raises(UnauthorizedError) as caught:
            admin.require({"x-api-key": "right"} if text is None else {"authorization": text})
        assert caught.value.message == "this needs the admin key: send it as 'Authorization: Bearer <key>'"
    rotate(file, "schlüssel", 2)
    admin.require({"authorization": "Bearer schlüssel".encode().decode("latin-1")})  # as a server hands it over


def test_a_changed_file_counts_at_once(file):
    admin = AdminKey(file)
    admin.require(bearer("right"))
    rotate(file, "second", 2)
    require_refused(admin, "right")
    admin.require(bearer("second"))
    rotate(file, "third", 1)  # an older file, put back
    admin.require(bearer("third"))
    require_refused(admin, "second")


def test_a_file_that_is_replaced_through_a_link_counts_as_kubernetes_does_it(tmp_path):
    for name, at in (("one", 1), ("two", 2)):
        rotate(tmp_path / name, name, at)
    link = tmp_path / "key"
    link.symlink_to(tmp_path / "one")
    admin = AdminKey(link)
    admin.require(bearer("one"))
    link.unlink()
    link.symlink_to(tmp_path / "two")
    admin.require(bearer("two"))
    require_refused(admin, "one")


def test_a_file_that_vanishes_or_becomes_empty_leaves_the_last_key_in_force(file):
    for content in (None, "", "\n", " \t"):
        rotate(file, "right", 1)
        admin = AdminKey(file)
        if content is None:
            file.unlink()
        else:
            rotate(file, content, 2)  # a writer truncates before it writes
        admin.require(bearer("right"))
        for given in ("", "wrong", "\0", content or ""):
            require_refused(admin, given)
        with pytest.raises(UnauthorizedError):
            admin.require({})
        rotate(file, "second", 2)  # in the same moment
        admin.require(bearer("second"))
        require_refused(admin, "right")


def test_a_file_that_is_missing_or_empty_at_the_start_is_refused(tmp_path):
    cases = {tmp_path / "none": ": No such file or directory", tmp_path: ": Is a directory"}
    for number, content in enumerate(("", "\n", "  \n\t")):
        cases[tmp_path / str(number)] = " is empty"
        (tmp_path / str(number)).write_text(content)
    for path, reason in cases.items():
        with pytest.raises(ConfigurationError) as caught:
            AdminKey(path)
        assert caught.value.message == f"router.admin_key_file: {path}{reason}"
