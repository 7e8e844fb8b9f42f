"""An AWS account for tests: moto's server and what it lacks, the tools of an installation, and a way to run it."""

import contextlib
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import boto3
import botocore.session
import pytest
from botocore.loaders import Loader

from serve_app.tools.deploy.aws import installer, scenarios
from serve_app.tools.deploy.aws.cli import cleanup, install
from serve_app.tools.deploy.aws.runner import Runner

HERE = Path(__file__).resolve().parent
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def output(self):
        return self.out + self.err


class Account:
    """An empty account, the eksctl and helm on the PATH, and the two commands; `aws` is the server behind them."""

    def __init__(self, aws, kubernetes, folder, monkeypatch):
        self.aws, self.kubernetes, self.folder = aws, kubernetes, folder
        self.kubeconfig, self.saved = folder / "kube" / "config", folder / "sites"
        self.records, self.models = folder / "records", folder / "repository"
        self.records.mkdir()
        self.set_eksctl_version("0.230.0")
        (self.models / "yolo" / "1").mkdir(parents=True)
        (self.models / "yolo" / "config.pbtxt").write_text('name: "yolo"\nbackend: "python"\n')
        (self.models / "yolo" / "1" / "model.py").write_text("class TritonPythonModel: pass\n")
        self._add_scripts(monkeypatch)
        for name in [name for name in os.environ if name.startswith(("AWS_", "HF_"))]:
            monkeypatch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_MAX_ATTEMPTS": "1",
            "FAKED_TOOLS": str(self.records),
            "PATH": f"{HERE / 'faked'}{os.pathsep}{os.environ['PATH']}",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(Runner, "poll_s", 0.05)
        aws.reset()

    def _add_scripts(self, monkeypatch):
        """scripts/deploy only records its calls; scripts/models is the real one."""
        scripts, calls = self.folder / "scripts", self.folder / "deploys"
        scripts.mkdir()
        (scripts / "deploy").write_text(
            f"import sys\nopen({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
        )
        (scripts / "models").symlink_to(installer.SCRIPTS / "models")
        monkeypatch.setattr(installer, "SCRIPTS", scripts)
        monkeypatch.setattr(scenarios, "SAVED", self.saved)

    def install(self, *arguments):
        return self._run(install, f"--models={self.models}", *arguments)

    def cleanup(self, *arguments):
        return self._run(cleanup, *arguments)

    def _run(self, command, *arguments):
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                command("test", [f"--kubeconfig={self.kubeconfig}", *arguments])
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
                err.write("" if isinstance(ended.code, int) else str(ended.code))
        return Ended(code, out.getvalue(), err.getvalue())

    @property
    def deploys(self):
        """The calls of scripts/deploy."""
        path = self.folder / "deploys"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def calls(self):
        """The calls of eksctl and helm."""
        path = self.records / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls_with(self, text):
        lines = [f"{call['tool']} {' '.join(call['argv'])}" for call in self.calls]
        return [line for line in lines if text in line]

    def set_eksctl_version(self, version):
        (self.records / "eksctl.version").write_text(version)

    def fail(self, tool_call=None, request=None):
        """Let eksctl or helm, or a request to AWS, fail from now on; without arguments none."""
        self.aws.refused = [request] if request else []
        (self.records / "fails").unlink(missing_ok=True)
        if tool_call:
            (self.records / "fails").write_text(tool_call)

    def set_releases(self, **statuses):
        (self.records / "releases.json").write_text(json.dumps(statuses))

    def push_images(self):
        """As kuberay/images/build --push, which creates the repositories that are missing."""
        ecr = boto3.client("ecr")
        for image in ("cpu", "head", "vision", "llm"):
            with contextlib.suppress(ecr.exceptions.RepositoryAlreadyExistsException):
                ecr.create_repository(repositoryName=f"serve-app/{image}")
            manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": {"digest": image}, "layers": []}
            ecr.put_image(repositoryName=f"serve-app/{image}", imageManifest=json.dumps(manifest), imageTag="0.1.0")


@pytest.fixture(scope="session")
def kubernetes_url(tmp_path_factory):
    announced = tmp_path_factory.mktemp("kubernetes") / "addresses.json"
    command = [sys.executable, str(HERE.parent / "kubernetes_api"), "--port", "0", "--announce", str(announced)]
    with subprocess.Popen([*command, "--crds", str(HERE.parent / "crds")], stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        yield json.loads(announced.read_text())["url"]
        child.terminate()


@pytest.fixture(scope="session")
def aws_server(kubernetes_url):
    from .server import Aws  # moto takes seconds to import

    server = Aws(kubernetes_url)
    with pytest.MonkeyPatch.context() as patch:  # the definitions of AWS's services are read once for all sessions
        loader = Loader()
        patch.setattr(botocore.session, "create_loader", lambda _paths: loader)
        yield server
    server.server.shutdown()


def request_of(url):
    """Requests to the Kubernetes API as its administrator."""

    def request(method, path, body=None):
        headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, data, headers, method=method)) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(error.read()) from None

    return request


@contextlib.contextmanager
def new_account(server, kubernetes_url, folder):
    kubernetes = request_of(kubernetes_url)
    with pytest.MonkeyPatch.context() as patch:
        yield Account(server, kubernetes, folder, patch)
    for name in ("serve-app", "monitoring", "robots"):
        kubernetes("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def account(aws_server, kubernetes_url, tmp_path):
    with new_account(aws_server, kubernetes_url, tmp_path) as account:
        yield account


@pytest.fixture(scope="module")
def installed(aws_server, kubernetes_url, tmp_path_factory):
    """The account after one installation, for all tests of a module."""
    with new_account(aws_server, kubernetes_url, tmp_path_factory.mktemp("installed")) as account:
        account.push_images()
        account.first = account.install()
        assert account.first.code == 0, account.first.output
        yield account
