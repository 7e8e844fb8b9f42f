"""What a load may bring with it over HTTP."""

import base64

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.models import load_parameters, require_load_parameter


def test_nothing_is_enough():
    assert load_parameters({}) == {}


def test_a_configuration_stays_text_and_files_come_out_of_base64():
    content = bytes(range(256))
    given = {"config": '{"name": "grün"}', "file:1/model.py": base64.b64encode(content).decode(), "file:2/empty": ""}
    assert load_parameters(given) == {"config": '{"name": "grün"}', "file:1/model.py": content, "file:2/empty": b""}


@pytest.mark.parametrize("parameters", [None, [], "config", 1, True])
def test_parameters_are_an_object(parameters):
    with pytest.raises(InvalidRequestError, match="Unable to parse 'parameters': it must be an object"):
        load_parameters(parameters)


@pytest.mark.parametrize("name", ["", "Config", "file", "configuration", "unload_dependents", "File:x", " file:x"])
def test_a_parameter_that_means_nothing_is_named(name):
    with pytest.raises(InvalidRequestError) as caught:
        load_parameters({name: "x"})
    assert caught.value.message == f"unknown load parameter '{name}'; known are 'config' and 'file:<path>'"


@pytest.mark.parametrize("value", [None, 1, True, [], {"name": "x"}, 1.5])
@pytest.mark.parametrize("name", ["config", "file:1/model.py"])
def test_a_value_is_text(name, value):
    with pytest.raises(InvalidRequestError, match=f"load parameter '{name}' must be a string"):
        load_parameters({name: value})


@pytest.mark.parametrize("text", ["a", "abc", "YQ", "YQ==YQ==", "Y Q=", "YQ==\n", "a-_b", "===="])
def test_a_file_that_is_no_base64_is_refused(text):
    with pytest.raises(InvalidRequestError, match=r"load parameter 'file:1/model\.py' is not valid base64"):
        load_parameters({"file:1/model.py": text})


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_what_cannot_be_passed_on_is_refused_in_names_and_values(text):
    with pytest.raises(InvalidRequestError, match="'config' must be valid UTF-8 without zero bytes"):
        load_parameters({"config": text})
    with pytest.raises(InvalidRequestError, match="a parameter's name must be valid UTF-8 without zero bytes"):
        require_load_parameter(f"file:{text}")


@pytest.mark.parametrize("text", ["é", "YQ==ü", "\ud800"])
def test_a_file_that_is_not_even_ascii_is_refused(text):
    with pytest.raises(InvalidRequestError, match="is not valid base64"):
        load_parameters({"file:1/model.py": text})
