"""The admin key: who has it, who hasn't, and what happens to its file."""

import os

import pytest
from starlette.datastructures import Headers

from serve_app.errors import ConfigurationError, ForbiddenError, UnauthorizedError
from serve_app.router.errors import public_error
from serve_app.router.keys import AdminKey


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


def test_without_a_file_everybody_may():
    for headers in ({}, bearer("anything"), {"authorization": "Basic x"}):
        AdminKey(None).require(headers)


def test_the_right_key_opens(file):
    admin = AdminKey(file)
    for text in ("Bearer right", "bearer right", "BEARER  right ", "Bearer \tright"):
        admin.require({"authorization": text})
    admin.require(Headers({"Authorization": "Bearer right"}))


@pytest.mark.parametrize(
    "key", ["wrong", "righ", "right2", "Right", "", " ", "right right", "right\0", "ä", "b'right'"]
)
def test_a_wrong_key_is_forbidden_and_not_repeated(file, key):
    require_refused(AdminKey(file), key)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": ""}, {"authorization": "right"}, {"authorization": "Basic x"}, {"authorization": "Bearer"},
     {"x-api-key": "right"}],
)  # fmt: skip
def test_without_a_key_the_caller_is_told_how_to_send_one(file, headers):
    with pytest.raises(UnauthorizedError) as caught:
        AdminKey(file).require(headers)
    assert caught.value.message == "this needs the admin key: send it as 'Authorization: Bearer <key>'"


def test_a_rotated_file_counts_at_once_and_the_old_key_no_longer(file):
    admin = AdminKey(file)
    admin.require(bearer("right"))
    rotate(file, "second", 2)
    require_refused(admin, "right")
    admin.require(bearer("second"))
    rotate(file, "third", 1)  # a file from before, put back
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


def test_a_file_that_vanishes_leaves_the_last_key_in_force(file):
    admin = AdminKey(file)
    file.unlink()
    admin.require(bearer("right"))
    require_refused(admin, "wrong")
    rotate(file, "second", 2)
    admin.require(bearer("second"))


def test_a_file_must_be_there_from_the_start(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        AdminKey(tmp_path / "none")
    assert caught.value.message == f"router.admin_key_file: {tmp_path / 'none'}: No such file or directory"
    with pytest.raises(ConfigurationError, match="Is a directory"):
        AdminKey(tmp_path)


@pytest.mark.parametrize("content", ["", "\n", "  \n\t"])
def test_an_empty_file_is_refused_and_opens_nothing(file, tmp_path, content):
    empty = tmp_path / "empty"
    empty.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        AdminKey(empty)
    assert caught.value.message == f"router.admin_key_file: {empty} is empty"


@pytest.mark.parametrize("content", ["", "\n", " \t"])
def test_a_file_that_becomes_empty_leaves_the_last_key_in_force(file, content):
    admin = AdminKey(file)
    rotate(file, content, 2)
    admin.require(bearer("right"))
    for given in ("", "wrong", "\0", content):
        require_refused(admin, given)
    rotate(file, "second", 2)  # in the same moment as it was emptied
    admin.require(bearer("second"))
    require_refused(admin, "right")


@pytest.mark.parametrize("headers", [{}, bearer("wrong")])
def test_a_file_that_becomes_empty_is_no_server_error(file, headers):
    admin = AdminKey(file)
    rotate(file, "", 2)  # a writer truncates before it writes
    with pytest.raises(Exception) as caught:  # noqa: PT011
        admin.require(headers)
    assert public_error(caught.value).status in (401, 403, 503)


def test_a_key_may_hold_any_character(file):
    rotate(file, "schlüssel", 2)
    header = "Bearer schlüssel".encode().decode("latin-1")  # as a server hands over what curl sends
    AdminKey(file).require({"authorization": header})
