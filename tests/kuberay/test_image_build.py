"""`kuberay/images/build`: what it calls, and what it refuses."""

import json
import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "kuberay" / "images"
ECR = "123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app"


def build(*arguments, **environment):
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | environment
    return subprocess.run([FOLDER / "build", *arguments], capture_output=True, text=True, timeout=60, env=environment)


def test_a_dry_run_prints_every_call_and_needs_neither_docker_nor_aws():
    run = build("--dry-run", "--push", "--registry", ECR, "--tag", "1.2.3", "head", "vision", PATH="/usr/bin:/bin")
    assert run.returncode == 0, run.stderr
    region = "--region us-west-2"
    login = f"docker login --username AWS --password-stdin {ECR.split('/')[0]}"
    created = (
        f"+ aws ecr create-repository {region} --repository-name serve-app/{{}} "
        "--image-scanning-configuration scanOnPush=true --output text"
    )
    assert run.stdout.splitlines() == [
        f"+ aws ecr get-login-password {region} | {login}",
        created.format("head"),
        created.format("vision"),
        "+ docker buildx bake --file kuberay/images/docker-bake.hcl --push head vision",
        f"{ECR}/head:1.2.3",
        f"{ECR}/vision:1.2.3",
    ]


def test_wrong_arguments_are_refused_and_nothing_is_built():
    for arguments, message in (
        (["nose"], "no image nose; the images are cpu head vision llm"),
        (["--pull"], "unknown option --pull; the options are --registry, --tag, --push, --pin, --dry-run and --help"),
        (["--tag"], "--tag needs a value"),
        (["--tag", "latest"], "the tag must be a version such as 0.1.0, got latest"),
        (["--dry-run", "--push"], f"--push needs an ECR registry such as {ECR}, got serve-app"),
    ):
        run = build(*arguments)
        assert (run.returncode, run.stderr, run.stdout) == (1, f"error: {message}\n", ""), arguments


@pytest.fixture
def faked_tools(tmp_path):
    """docker and aws that record their calls; `serve-app/head` exists, other repositories don't."""
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


def test_a_push_creates_only_the_missing_repositories_with_a_faked_docker_and_aws(faked_tools):
    run = build("--push", "--tag", "1.2.3", "head", "vision", REGISTRY=ECR, **faked_tools)
    assert run.returncode == 0, run.stderr
    calls = Path(faked_tools["LOG"]).read_text().splitlines()
    created = [call.split("--repository-name ")[1].split()[0] for call in calls if "create-repository" in call]
    assert created == ["serve-app/vision"]
    assert calls[-2:] == ["docker buildx bake --file kuberay/images/docker-bake.hcl --push head vision", "1.2.3 true"]
    assert "pw" not in run.stdout + run.stderr


def test_base_images_are_pinned_to_what_the_registry_has_with_a_faked_docker(faked_tools, tmp_path):
    digests = FOLDER / "digests.env"
    assert not digests.exists()
    folder = "kuberay/images"
    target = {"cpu": {"dockerfile": f"{folder}/cpu.Dockerfile", "args": {"UV_VERSION": "0.13.8", "BASE_DIGEST": ""}}}
    target["head"] = {
        "dockerfile": f"{folder}/head.Dockerfile",
        "args": {"UV_VERSION": "0.13.8", "BASE_TAG": "2.60.0-py312"},
    }
    (tmp_path / "printed.json").write_text(json.dumps({"target": target}))
    docker = tmp_path / "docker"
    docker.write_text(f"""#!/bin/sh
case $* in
*--print*) cat {tmp_path}/printed.json;;
*inspect*) echo "sha256:$(echo $4 | sha256sum | cut -c1-64)";;
*bake*) echo "$CPU_BASE_DIGEST $UV_DIGEST" >>"$LOG";;
esac
""")
    try:
        run = build("--pin", **faked_tools)
        assert run.returncode == 0, run.stderr
        pinned = dict(line.split(" # ")[0].split("=") for line in digests.read_text().splitlines())
        assert set(pinned) == {"CPU_BASE_DIGEST", "HEAD_BASE_DIGEST", "UV_DIGEST"}
        assert len(set(pinned.values())) == 3
        assert build("cpu", **faked_tools).returncode == 0
        assert Path(faked_tools["LOG"]).read_text() == f"{pinned['CPU_BASE_DIGEST']} {pinned['UV_DIGEST']}\n"
    finally:
        digests.unlink(missing_ok=True)


def test_nothing_is_built_where_the_login_is_refused_with_a_faked_docker_and_aws(faked_tools):
    run = build("--push", "head", REGISTRY=ECR, DENIED="1", **faked_tools)
    assert run.returncode != 0
    assert "bake" not in Path(faked_tools["LOG"]).read_text()
