"""The Dockerfiles and the bake file of kuberay/images, checked without building; `make check` lints them."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import hcl2

from serve_app.tools.deploy.scenarios.scenario import Images

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "kuberay" / "images"
NAMES = ("cpu", "head", "vision", "llm")


def instructions_of(name):
    """(INSTRUCTION, rest) in order; continued lines are joined, comments are left out."""
    lines = [line for line in (FOLDER / f"{name}.Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def arguments_of(name, instruction):
    return [rest for word, rest in instructions_of(name) if word == instruction]


def defaults_of(name):
    """Build arguments with their defaults; one without a default repeats an earlier one after FROM."""
    return dict(one.split("=", 1) for one in arguments_of(name, "ARG") if "=" in one)


def sources_of(name):
    """The project's files that a build copies or binds."""
    copied = [part for rest in arguments_of(name, "COPY") if "--from" not in rest for part in rest.split()[:-1]]
    binds = [re.findall(r"--mount=type=bind,source=([^,\s]+)", rest) for rest in arguments_of(name, "RUN")]
    return [*copied, *(source for found in binds for source in found)]


@cache
def bake():
    return plain(hcl2.loads((FOLDER / "docker-bake.hcl").read_text()))


def plain(value):
    """Without the parser's quotes and marks."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key.strip('"'): plain(one) for key, one in value.items() if not key.startswith("__")}
    return value[1:-1] if isinstance(value, str) and value[:1] == value[-1:] == '"' else value


def blocks(kind):
    return {name: block for one in bake()[kind] for name, block in one.items()}


def variables():
    return {name: block["default"] for name, block in blocks("variable").items()}


def filled(text):
    """With the defaults of `${NAME}` and NAME."""
    if text in variables():
        return variables()[text]
    return re.sub(r"\$\{(\w+)\}", lambda found: str(variables()[found[1]]), text)


@cache
def ignored():
    """Each rule of .dockerignore: whether it excludes, and its pattern."""
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            rules.append((not line.startswith("!"), re.compile(pattern.replace(r"\[0\-9\]", "[0-9]"))))
    return rules


def is_excluded(path):
    """The last rule that matches a path, or a folder it is in, decides."""
    places = ["/".join(path.split("/")[:end]) for end in range(1, path.count("/") + 2)]
    excluded = False
    for excludes, pattern in ignored():
        if any(pattern.fullmatch(place) for place in places):
            excluded = excludes
    return excluded


def test_copied_files_exist_and_are_not_excluded_by_dockerignore():
    for name in NAMES:
        sources = sources_of(name)
        assert {"serve_app", "scripts", "configs", f"kuberay/images/requirements/{name}.txt"} <= set(sources)
        for source in sources:
            listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", source]
            files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
            assert files, f"git has nothing at {source}"
            existing = [file for file in files.split() if (ROOT / file).exists()]
            assert [file for file in existing if is_excluded(file)] == []
    assert {name for name in NAMES if any("weights" in source for source in sources_of(name))} == {"cpu"}


def test_built_and_private_files_are_excluded_by_dockerignore():
    for path in (
        ".git/config", ".venv/bin/python", "runs/x", "tests/conftest.py", ".env", "kuberay/scenarios/all.yaml",
        "serve_app/__pycache__/app.cpython-311.pyc", "serve_app/triton/__pycache__/engine.pyc",
        "model_repository/gpu/yolo/1/model.onnx", "model_repository/gpu/yolo/1/model.plan", "model_repository/plans/a",
        "model_repository/cpu/yolo_nano/1/model.xml", "model_repository/cpu/yolo_nano/1/model.json",
    ):  # fmt: skip
        assert is_excluded(path), path


def test_an_image_runs_without_root_checks_its_health_and_describes_itself():
    for name in NAMES:
        assert arguments_of(name, "USER")[-1] == "1000:100"
        (health,) = arguments_of(name, "HEALTHCHECK")
        assert "wget" in health
        assert "/api/local_raylet_healthz" in health
        (labels,) = arguments_of(name, "LABEL")
        keys = re.findall(r"org\.opencontainers\.image\.([\w.]+)=", labels)
        assert set(keys) == {"title", "description", "version", "revision", "created", "base.name"}
        assert f'title="serve_app {name}"' in labels
        assert "Size, an estimate:" in (FOLDER / f"{name}.Dockerfile").read_text()


def test_bytecode_is_compiled_and_no_secret_is_an_argument_or_a_variable():
    for name in NAMES:
        variables = " ".join(arguments_of(name, "ENV"))
        assert "PYTHONUNBUFFERED=1" in variables
        assert "PYTHONDONTWRITEBYTECODE" not in variables
        assert any("compileall" in rest for rest in arguments_of(name, "RUN"))
        secrets = re.findall(r"TOKEN|PASSWORD|SECRET|_KEY", " ".join(arguments_of(name, "ARG")) + variables, re.I)
        assert secrets == [], name


def test_base_images_are_pinned_and_requirements_installed_before_the_code_is_copied():
    for name in NAMES:
        defaults = defaults_of(name)
        assert defaults["UV_DIGEST"] == defaults["BASE_DIGEST"] == ""
        used = "${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}"
        assert arguments_of(name, "FROM") == ["${UV_IMAGE}:${UV_VERSION}${UV_DIGEST:+@${UV_DIGEST}} AS uv", used]
        assert re.search(r"\d", defaults["BASE_TAG"])
        assert "latest" not in (FOLDER / f"{name}.Dockerfile").read_text()
        order = [(word, rest) for word, rest in instructions_of(name) if word in ("RUN", "COPY")]
        installs = next(i for i, (_, rest) in enumerate(order) if f"requirements/{name}.txt" in rest)
        assert installs < next(i for i, (word, _) in enumerate(order) if word == "COPY")


def test_the_bake_file_and_the_dockerfiles_agree():
    targets = blocks("target")
    common = targets["common"]
    assert blocks("group") == {"default": {"targets": list(NAMES)}}
    assert set(targets) == {"common", *NAMES}
    assert common["platforms"] == ["linux/amd64"]
    assert f"IMAGES=({' '.join(NAMES)})" in (FOLDER / "build").read_text()
    for name in NAMES:
        target = targets[name]
        assert target["inherits"] == ["common"]
        assert target["dockerfile"] == f"kuberay/images/{name}.Dockerfile"
        assert target["tags"] == [f"${{REGISTRY}}/{name}:${{TAG}}"]
        given = {key: filled(value) for key, value in (common["args"] | target["args"]).items()}
        assert given.items() <= defaults_of(name).items()
        assert all(f'"{name}"' in target[key] for key in ("cache-from", "cache-to"))


def test_manifests_and_the_project_have_the_names_and_version_that_are_built():
    images = Images()
    assert [filled(f"${{REGISTRY}}/{name}:${{TAG}}") for name in NAMES] == [images.name(name) for name in NAMES]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == variables()["TAG"]
