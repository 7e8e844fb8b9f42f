"""The exception tree: what crosses process borders, and what each class answers."""

import inspect
import pickle

import pytest

from serve_app import errors
from serve_app.errors import ServeAppError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, ServeAppError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_with_its_message_and_status(kind):
    copy = pickle.loads(pickle.dumps(kind("model 'yolo' is not there")))
    assert type(copy) is kind
    assert copy.message == str(copy) == "model 'yolo' is not there"
    assert copy.status == kind.status


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_tree_in_the_docstring_tells_every_class_and_its_status(kind):
    assert f"{kind.__name__} " in errors.__doc__
    line = next(line for line in errors.__doc__.splitlines() if f"{kind.__name__} " in line)
    assert line.endswith(f" {kind.status}")
    assert kind.__doc__


def test_only_errors_that_pass_by_themselves_ask_to_retry():
    assert {kind.__name__ for kind in CLASSES if kind.retry_after_s} == {
        "QueueFullError",
        "ReplicaKilledError",
        "ReplicaLostError",
        "TooManyRequestsError",
        "UnavailableError",
    }
