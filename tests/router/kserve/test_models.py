"""The parameters of a load request over HTTP."""

import base64

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.models import load_parameters, require_load_parameter

FILE = "file:1/model.py"


def test_a_configuration_stays_text_and_files_are_decoded_from_base64():
    content = bytes(range(256))
    given = {"config": '{"name": "grün"}', FILE: base64.b64encode(content).decode(), "file:2/empty": ""}
    assert load_parameters(given) == {"config": '{"name": "grün"}', FILE: content, "file:2/empty": b""}
    assert load_parameters({}) == {}


def test_a_wrong_load_parameter_is_named():
    cases = [(given, "Unable to parse 'parameters': it must be an object") for given in (None, [], "config", 1, True)]
    for name in ("", "Config", "file", "configuration", "unload_dependents", "File:x", " file:x"):
        cases.append(({name: "x"}, f"unknown load parameter '{name}'; known are 'config' and 'file:<path>'"))
    for name in ("config", FILE):
        for value in (None, 1, True, [], {"name": "x"}, 1.5):
            cases.append(({name: value}, f"load parameter '{name}' must be a string"))
    for text in ("a", "abc", "YQ", "YQ==YQ==", "Y Q=", "YQ==\n", "a-_b", "====", "é", "YQ==ü", "\ud800"):
        cases.append(({FILE: text}, f"load parameter '{FILE}' is not valid base64"))
    for text in ("a\0b", "\ud800"):
        cases.append(({"config": text}, "'config' must be valid UTF-8 without zero bytes"))
    for given, message in cases:
        with pytest.raises(InvalidRequestError) as caught:
            load_parameters(given)
        assert message in caught.value.message, given
    for text in ("a\0b", "\ud800"):
        with pytest.raises(InvalidRequestError, match="a parameter's name must be valid UTF-8 without zero bytes"):
            require_load_parameter(f"file:{text}")
