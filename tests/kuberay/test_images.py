"""The images of kuberay/images, as far as they can be checked without an engine that builds them."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import hcl2
import pytest
import yaml

from serve_app.tools.deploy.scenarios.scenario import Images

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "kuberay" / "images"
NAMES = ("cpu", "head", "vision", "llm")
BIN = Path(sys.executable).parent


def instructions_of(name):
    """(INSTRUCTION, rest) in order; continued lines are joined, comments are left out."""
    lines = [line for line in (FOLDER / f"{name}.Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def said(name, instruction):
    return [rest for word, rest in instructions_of(name) if word == instruction]


def defaults_of(name):
    """The build arguments with their defaults; one without a default is declared again after FROM."""
    return dict(one.split("=", 1) for one in said(name, "ARG") if "=" in one)


def sources_of(name):
    """What of the project is copied or bound into a build."""
    copied = [part for rest in said(name, "COPY") if "--from" not in rest for part in rest.split()[:-1]]
    binds = [re.findall(r"--mount=type=bind,source=([^,\s]+)", rest) for rest in said(name, "RUN")]
    return [*copied, *(source for found in binds for source in found)]


@cache
def bake():
    return plain(hcl2.loads((FOLDER / "docker-bake.hcl").read_text()))


def plain(value):
    """The parser keeps quotes, and marks blocks and comments."""
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
    """`${NAME}` and NAME by their defaults."""
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


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name):
    config = ["--config", str(FOLDER / ".hadolint.yaml")]
    run = subprocess.run(
        [BIN / "hadolint", *config, FOLDER / f"{name}.Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, "")


def test_hadolint_is_told_to_fail_on_everything():
    assert yaml.safe_load((FOLDER / ".hadolint.yaml").read_text())["failure-threshold"] == "style"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_exists_and_reaches_the_build(name):
    sources = sources_of(name)
    assert {"serve_app", "scripts", "configs", f"kuberay/images/requirements/{name}.txt"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", source]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout.split()
        assert files, f"git has nothing at {source}"
        assert [file for file in files if is_excluded(file)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", "runs/x", "tests/conftest.py", ".env", "kuberay/scenarios/all.yaml",
        "serve_app/__pycache__/app.cpython-311.pyc", "serve_app/triton/__pycache__/engine.pyc",
        "model_repository/gpu/yolo/1/model.onnx", "model_repository/gpu/yolo/1/model.plan", "model_repository/plans/a",
        "model_repository/cpu/yolo_nano/1/model.xml", "model_repository/cpu/yolo_nano/1/model.json",
    ],
)  # fmt: skip
def test_what_is_built_or_private_stays_out_of_the_build(path):
    assert is_excluded(path)


def test_weights_are_in_the_image_without_a_gpu_alone():
    having = {name for name in NAMES if any("weights" in source for source in sources_of(name))}
    assert having == {"cpu"}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_without_root_and_says_how_it_is(name):
    assert said(name, "USER")[-1] == "1000:100"
    (health,) = said(name, "HEALTHCHECK")
    assert "/api/local_raylet_healthz" in health
    assert "wget" in health
    environment = " ".join(said(name, "ENV"))
    assert "PYTHONUNBUFFERED=1" in environment
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert any("compileall" in rest for rest in said(name, "RUN"))
    assert "Size, an estimate:" in (FOLDER / f"{name}.Dockerfile").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_what_it_is(name):
    (labels,) = said(name, "LABEL")
    keys = re.findall(r"org\.opencontainers\.image\.([\w.]+)=", labels)
    assert set(keys) == {"title", "description", "version", "revision", "created", "base.name"}
    assert f'title="serve_app {name}"' in labels


@pytest.mark.parametrize("name", NAMES)
def test_bases_are_pinned_arguments_and_nothing_is_latest(name):
    defaults = defaults_of(name)
    for prefix in ("UV", "BASE"):
        assert defaults[f"{prefix}_DIGEST"] == ""
    used = "${BASE_IMAGE}:${BASE_TAG}${BASE_DIGEST:+@${BASE_DIGEST}}"
    assert said(name, "FROM") == ["${UV_IMAGE}:${UV_VERSION}${UV_DIGEST:+@${UV_DIGEST}} AS uv", used]
    assert re.search(r"\d", defaults["BASE_TAG"])
    assert "latest" not in (FOLDER / f"{name}.Dockerfile").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_installed_before_the_code_is_copied(name):
    order = [(word, rest) for word, rest in instructions_of(name) if word in ("RUN", "COPY")]
    installs = next(i for i, (_, rest) in enumerate(order) if f"requirements/{name}.txt" in rest)
    copies = next(i for i, (word, _) in enumerate(order) if word == "COPY")
    assert installs < copies


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_an_argument_or_in_the_environment(name):
    words = " ".join([*said(name, "ARG"), *said(name, "ENV")])
    assert not re.search(r"TOKEN|PASSWORD|SECRET|_KEY", words, re.IGNORECASE)


def test_the_bake_file_builds_every_image_by_default():
    assert blocks("group") == {"default": {"targets": list(NAMES)}}
    assert set(blocks("target")) == {"common", *NAMES}
    assert blocks("target")["common"]["platforms"] == ["linux/amd64"]
    assert f"IMAGES=({' '.join(NAMES)})" in (FOLDER / "build").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_target_and_its_dockerfile_agree(name):
    target, common = blocks("target")[name], blocks("target")["common"]
    assert target["inherits"] == ["common"]
    assert target["dockerfile"] == f"kuberay/images/{name}.Dockerfile"
    assert (ROOT / target["dockerfile"]).is_file()
    assert target["tags"] == [f"${{REGISTRY}}/{name}:${{TAG}}"]
    given = {key: filled(value) for key, value in (common["args"] | target["args"]).items()}
    defaults = defaults_of(name)
    assert {key: defaults.get(key) for key in given} == given
    for cache_of in (target["cache-from"], target["cache-to"]):
        assert f'"{name}"' in cache_of


def test_the_manifests_want_the_images_that_are_built():
    images = Images()
    assert [filled(f"${{REGISTRY}}/{name}:${{TAG}}") for name in NAMES] == [images.name(name) for name in NAMES]
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == variables()["TAG"]
