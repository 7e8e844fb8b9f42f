"""Runs one target under atheris: python -m tests.fuzz.run TARGET [options of libFuzzer]."""

import importlib
import sys
from random import Random
from types import ModuleType

import atheris

from tests.fuzz.mutation import mutated

# Whose branches guide the fuzzer; modules that were imported before aren't seen.
INSTRUMENTED = ("serve_app", "starlette", "python_multipart", "PIL", "yaml")
OF_DOCUMENTS = 0.6  # of all changes, where a target's inputs have a JSON document


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(f"tests.fuzz.targets.{name}")
        from tests.fuzz.property import require_holds
    change = {"custom_mutator": _mutator(target)} if hasattr(target, "document_of") else {}
    atheris.Setup([name, *options], lambda data: require_holds(target.take, data), **change)
    atheris.Fuzz()


def _mutator(target: ModuleType):
    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < OF_DOCUMENTS:
            try:
                changed = target.with_document(data, mutated(target.document_of(data), target.WORDS, random))
            except Exception:  # not a document, or not one after the change
                changed = b""
            if 0 < len(changed) <= max_size:
                return changed
        return atheris.Mutate(data, max_size)

    return mutate


if __name__ == "__main__":
    main()
