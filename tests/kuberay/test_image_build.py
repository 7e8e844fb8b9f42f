"""`kuberay/images/build`: what it calls, and what it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "kuberay" / "images"
BIN = Path(sys.executable).parent
ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app"


def test_shellcheck_finds_nothing_in_the_build_script():
    run = subprocess.run([BIN / "shellcheck", FOLDER / "build"], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")


def build(*arguments, **environment):
    path = environment.pop("PATH", os.environ["PATH"])
    return subprocess.run(
        [FOLDER / "build", *arguments], capture_output=True, text=True, timeout=60,
        env={"PATH": path, "HOME": "/nonexistent"} | environment,
    )  # fmt: skip


def test_a_dry_run_prints_every_call_and_needs_neither_docker_nor_aws():
    run = build("--dry-run", "--push", "--registry", ECR, "--tag", "1.2.3", "head", "vision", PATH="/usr/bin:/bin")
    assert run.returncode == 0, run.stderr
    host = ECR.split("/")[0]
    region = "--region us-west-2"
    made = f"+ aws ecr create-repository {region} --repository-name serve-app/{{}} --image-scanning-configuration"
    assert run.stdout.splitlines() == [
        f"+ aws ecr get-login-password {region} | docker login --username AWS --password-stdin {host}",
        made.format("head") + " scanOnPush=true --output text",
        made.format("vision") + " scanOnPush=true --output text",
        "+ docker buildx bake --file kuberay/images/docker-bake.hcl --push head vision",
        f"{ECR}/head:1.2.3",
        f"{ECR}/vision:1.2.3",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nose"], "there is no image nose; there are cpu head vision llm"),
        (["--pull"], "--pull is no option; there are --registry, --tag, --push, --dry-run and --help"),
        (["--tag"], "--tag needs a value"),
        (["--tag", "latest"], "the tag latest means another image every week; name a version with --tag"),
        (
            ["--dry-run", "--push"],
            "--push needs a registry like 123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app, not serve-app",
        ),
    ],
)
def test_the_build_says_what_is_wrong_and_does_nothing(arguments, message):
    run = build(*arguments)
    assert (run.returncode, run.stderr, run.stdout) == (1, f"error: {message}\n", "")


@pytest.fixture
def faked_tools(tmp_path):
    """docker and aws that write down how they were called; `serve-app/head` exists, others don't."""
    log = tmp_path / "calls"
    answers = {
        "aws": 'case $* in *describe-repositories*vision*) exit 254;; *get-login*) [ -z "$DENIED" ] && echo pw;; esac',
        "docker": 'case $* in login*) read -r it; [ "$it" = pw ];; buildx*bake*) echo "$TAG $CACHE" >>"$LOG";; esac',
    }
    for name, answer in answers.items():
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >>"$LOG"\n{answer}\n')
        tool.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log)}


def test_a_push_makes_the_missing_repositories_alone_with_a_faked_docker_and_aws(faked_tools):
    run = build("--push", "--tag", "1.2.3", "head", "vision", REGISTRY=ECR, **faked_tools)
    assert run.returncode == 0, run.stderr
    calls = Path(faked_tools["LOG"]).read_text().splitlines()
    made = [call for call in calls if "create-repository" in call]
    assert [call.split("--repository-name ")[1].split()[0] for call in made] == ["serve-app/vision"]
    assert calls[-2:] == ["docker buildx bake --file kuberay/images/docker-bake.hcl --push head vision", "1.2.3 true"]
    assert "pw" not in run.stdout + run.stderr


def test_a_refused_login_builds_nothing_with_a_faked_docker_and_aws(faked_tools):
    run = build("--push", "head", REGISTRY=ECR, DENIED="1", **faked_tools)
    assert run.returncode != 0
    assert "bake" not in Path(faked_tools["LOG"]).read_text()
