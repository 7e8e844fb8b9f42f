"""The house rules that a parser can check: who imports whom, who reads the environment, how modules open."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "serve_app").rglob("*.py"))
GROUND = {"settings", "errors", "types", "telemetry"}
SERVICE = GROUND | {"app", "versions", "router", "triton", "detection", "llm", "ui", "keys"}  # what runs in a replica
ENVIRONMENT_READERS = {
    "serve_app/settings/reading.py",
    "serve_app/triton/embedded/library.py",
    # a replica tells Triton's Python models, which are processes of Triton's
    "serve_app/triton/replica.py",
    "serve_app/triton/python_models/picture.py",
    # commands and what starts processes hand the environment on
    "serve_app/llm/engine_process.py",
    "serve_app/tools/bench/baselines/processes.py",
    "serve_app/tools/bench/baselines/gateway.py",
    "serve_app/tools/arguments.py",
    "serve_app/tools/launch/cli.py",
    "serve_app/tools/launch/haproxy.py",
    "serve_app/tools/launch/monitor.py",
    "serve_app/tools/export/build_models.py",
    "serve_app/tools/deploy/aws/cli.py",
}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path, nested=True):
    """Absolute names of what a file imports; `nested` adds what functions import. Type checking is left out."""
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    tree = ast.parse(path.read_text())
    found = set()
    for node in runtime_nodes(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{name}.{alias.name}" for alias in node.names}
    return found


def runtime_nodes(tree):
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        waiting += list(ast.iter_child_nodes(node))


def part_of(module):
    """`serve_app.triton.engine` → `triton`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "serve_app" and len(parts) > 1 else None


GRAPH = {module_of(path): imports_of(path) for path in FILES}


def parts_imported_by(part):
    return {
        target: module
        for module, names in GRAPH.items()
        if part_of(module) == part
        for name in names
        if (target := part_of(name)) and target != part
    }


def test_parts_import_each_other_without_a_circle():
    parts = {part_of(module) for module in GRAPH} - {None}
    try:
        TopologicalSorter({part: set(parts_imported_by(part)) for part in parts}).prepare()
    except CycleError as circle:
        pytest.fail(f"parts import each other in a circle: {' → '.join(circle.args[1])}")


def test_modules_import_each_other_without_a_circle_when_they_are_loaded():
    """In the binding of Triton also what functions import, and what is imported for type checking only."""
    embedded = ROOT / "serve_app" / "triton" / "embedded"
    graph = {}
    for path in FILES:
        names = imports_of(path, nested=False)
        if path.parent == embedded:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level == 1:
                    base = ".".join([module_of(embedded / "__init__.py"), *([node.module] if node.module else [])])
                    names |= {f"{base}.{alias.name}" for alias in node.names}
        graph[module_of(path)] = {name if name in GRAPH else name.rpartition(".")[0] for name in names} & set(GRAPH)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"modules import each other in a circle: {' → '.join(circle.args[1])}")


@pytest.mark.parametrize("part", sorted(GROUND))
def test_the_ground_imports_nothing_above_it(part):
    assert set(parts_imported_by(part)) <= GROUND


def test_the_service_imports_no_tool():
    for part in sorted(SERVICE | {"clients"}):
        assert "tools" not in parts_imported_by(part), parts_imported_by(part)["tools"]


def test_a_room_of_the_service_or_the_tools_is_all_there_is():
    assert {part_of(module) for module in GRAPH} - {None} == SERVICE | {"clients", "tools"}


def test_only_app_composes():
    importers = {module for module, names in GRAPH.items() if any(part_of(name) == "app" for name in names)}
    assert importers == set()
    binders = [path for path in FILES if re.search(r"\.bind\((?!\()", path.read_text())]  # a socket's takes a tuple
    assert [path.name for path in binders] == ["app.py", "bare_serve.py"]  # an application of the benchmarks' own


def test_the_router_imports_no_engine():
    assert set(parts_imported_by("router")) <= GROUND | {"detection", "keys"}
    foreign = {"tritonserver", "openvino", "torch", "ultralytics", "vllm", "onnxruntime"}
    for module, names in GRAPH.items():
        if part_of(module) == "router":
            assert not {name.split(".")[0] for name in names} & foreign, module


def test_clients_know_no_server():
    """What happens to a picture, and how a key travels, is the same at both ends."""
    assert set(parts_imported_by("clients")) <= GROUND | {"detection", "keys"}


def test_the_playground_is_a_client():
    """Its deployment is in `app` alone, and Gradio in no process but its own, where it is loaded when it is wanted."""
    assert set(parts_imported_by("ui")) <= GROUND | {"detection", "clients", "keys"}
    importers = {module for module, names in GRAPH.items() if any(part_of(name) == "ui" for name in names)}
    assert {part_of(module) for module in importers} == {"ui", "app"}
    gradio = {module for module, names in GRAPH.items() if any(name.split(".")[0] == "gradio" for name in names)}
    assert {part_of(module) for module in gradio} == {"ui"}


def test_a_process_that_builds_the_application_loads_no_gradio():
    program = "import sys, serve_app.app, serve_app.ui.replica; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=100).returncode == 0


def test_only_triton_imports_the_server_or_its_binding():
    for module, names in GRAPH.items():
        if part_of(module) != "triton":
            assert not {name for name in names if name.startswith(("tritonserver", "serve_app.triton.embedded"))}, (
                module
            )


def test_only_llm_and_app_import_ray_serve_llm():
    for module, names in GRAPH.items():
        if part_of(module) not in ("llm", "app"):
            assert not {name for name in names if name.startswith("ray.serve.llm")}, module


def test_the_environment_is_read_where_it_is_allowed_only():
    readers = {str(path.relative_to(ROOT)) for path in FILES if "os.environ" in path.read_text()}
    assert readers <= ENVIRONMENT_READERS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_one_sentence(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "no docstring"
    assert docstring.split("\n\n")[0].rstrip().endswith((".", "…", ":")), "the docstring's first line is no sentence"


def test_no_file_is_named_after_nothing():
    assert not {path.stem for path in FILES} & {"utils", "common", "helpers", "base", "manager"}
