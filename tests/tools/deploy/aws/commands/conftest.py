"""What the tests of scripts/install and scripts/cleanup share: tools that take notes, images, and a way to run them."""

import json
import os
from pathlib import Path

import boto3
import pytest

from serve_app.tools.deploy.aws import installation, services
from serve_app.tools.deploy.aws.command import cleanup, install

HERE = Path(__file__).resolve().parent
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Tools:
    """The eksctl and helm on the PATH, and what they were called with."""

    def __init__(self, notes):
        self.notes = notes
        (notes / "eksctl.version").write_text("0.230.0")

    @property
    def calls(self):
        path = self.notes / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def lines(self, *words):
        said = [f"{call['tool']} {' '.join(call['argv'])}" for call in self.calls]
        return [line for line in said if all(word in line for word in words)]

    def fail(self, part):
        (self.notes / "fails").write_text(part)

    def heal(self):
        (self.notes / "fails").unlink(missing_ok=True)

    def set_release(self, name, status):
        (self.notes / "releases.json").write_text(json.dumps({name: status}))


@pytest.fixture
def tools(monkeypatch, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setenv("FAKED_TOOLS", str(notes))
    monkeypatch.setenv("PATH", f"{HERE / 'faked'}{os.pathsep}{os.environ['PATH']}")
    return Tools(notes)


@pytest.fixture
def scripts(monkeypatch, tmp_path):
    """scripts/deploy that takes notes in place of the real one; scripts/models is the real one."""
    folder, notes = tmp_path / "scripts", tmp_path / "deploys"
    folder.mkdir()
    (folder / "deploy").write_text(f"import sys\nopen({str(notes)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n")
    (folder / "models").symlink_to(installation.SCRIPTS / "models")
    monkeypatch.setattr(installation, "SCRIPTS", folder)
    monkeypatch.setattr(services, "SITES", tmp_path / "sites")
    return lambda: notes.read_text().splitlines() if notes.exists() else []


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "repository"
    (folder / "yolo" / "1").mkdir(parents=True)
    (folder / "yolo" / "config.pbtxt").write_text('name: "yolo"\nbackend: "python"\n')
    (folder / "yolo" / "1" / "model.py").write_text("class TritonPythonModel: pass\n")
    return folder


class Ran:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def everything(self):
        return self.out + self.err


@pytest.fixture
def run(capfd, tmp_path):
    """One of the two commands, in this process: its exit status and all that it and its children print."""

    def run(command, *arguments):
        place = f"--kubeconfig={tmp_path / 'kube' / 'config'}"
        code, said = 0, ""
        try:
            {"install": install, "cleanup": cleanup}[command]("test", [place, *arguments])
        except SystemExit as ended:
            code, said = (ended.code, "") if isinstance(ended.code, int) else (1, str(ended.code))
        out, err = capfd.readouterr()
        return Ran(code, out, err + said)

    return run


@pytest.fixture
def push_images(aws):
    """What a build would push: an image under the scenarios' tag in each repository."""

    def push():
        ecr = boto3.client("ecr")
        for image in ("cpu", "head", "vision", "llm"):
            manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": {"digest": image}, "layers": []}
            ecr.put_image(repositoryName=f"serve-app/{image}", imageManifest=json.dumps(manifest), imageTag="0.1.0")

    return push


@pytest.fixture
def whole(run, aws, tools, kubernetes, scripts, models):
    return lambda *more: run("install", f"--models={models}", *more)


@pytest.fixture
def with_images(whole, push_images):
    """Repositories, and in them what a build pushes."""
    assert whole("--only=images").code == 0
    push_images()


@pytest.fixture
def installed(whole, with_images):
    ran = whole()
    assert ran.code == 0, ran.everything
    return ran
