"""The names of vLLM's arguments, read from its source: to import it takes ten seconds of a processor."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ENGINE = "engine/arg_utils.py", ("EngineArgs", "AsyncEngineArgs")
FRONTEND = "entrypoints/launchers/cli_args.py", ("BaseFrontendArgs", "FrontendArgs")
ADAPTER = "entrypoints/openai/models/protocol.py", ("LoRAModulePath",)


def engine_arguments() -> frozenset[str]:
    return _fields(*ENGINE) | _fields(*FRONTEND)


def adapter_arguments() -> frozenset[str]:
    return _fields(*ADAPTER)


@cache
def _fields(path: str, classes: tuple[str, ...]) -> frozenset[str]:
    """Of dataclasses in one file of vLLM's."""
    vllm = find_spec("vllm")
    if vllm is None or not vllm.submodule_search_locations:
        raise ValueError("vLLM is not installed here")
    source = ast.parse((Path(vllm.submodule_search_locations[0]) / path).read_text())
    bodies = [one.body for one in source.body if isinstance(one, ast.ClassDef) and one.name in classes]
    statements = [statement for body in bodies for statement in body]
    targets = [statement.target for statement in statements if isinstance(statement, ast.AnnAssign)]
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))
