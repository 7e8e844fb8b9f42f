"""Every committed input holds what `make fuzz` asks of all inputs."""

import importlib

import pytest

from tests.fuzz.campaign import HERE, TARGETS
from tests.fuzz.property import require_holds


def test_every_target_has_a_corpus_and_the_other_way_round():
    assert {folder.name for folder in (HERE / "corpus").iterdir()} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target):
    take = importlib.import_module(f"tests.fuzz.targets.{target}").take
    inputs = sorted((HERE / "corpus" / target).iterdir())
    assert inputs
    for path in inputs:
        try:
            require_holds(take, path.read_bytes())
        except Exception as problem:
            raise AssertionError(f"{target}/{path.name} does not hold") from problem
