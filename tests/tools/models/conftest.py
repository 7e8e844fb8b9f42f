"""moto's S3 on loopback, which can hold, refuse and break requests, and the command in this process or in others."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from serve_app.tools.models.bucket import Bucket, BucketUrl
from serve_app.tools.models.command import main
from serve_app.tools.models.repository import Repository

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "models"
PATIENCE_S = 60
SECRET = "test-secret"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def wait_until(happens, what):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happens()):
        assert time.monotonic() < deadline, f"{what} didn't happen within {PATIENCE_S} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def until():
    return wait_until


class S3:
    """Requests are lines such as `GET /bucket/prefix/current`; tests set what is done before them and predicates."""

    def __init__(self):
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.reset()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self):
        self.requests, self.held = [], []
        self.before = self.holds = self.refuses = self.breaks = lambda request: False
        self._released = threading.Event()

    def release(self):
        self.holds = lambda request: False
        self._released.set()

    def close(self):
        self.release()
        self._server.shutdown()

    def asked(self, method, folder):
        return [line for line in self.requests if line.startswith(f"{method} ") and f"/{folder}" in line]

    def __call__(self, environ, start_response):
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        self.before(request)
        if self.refuses(request):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        if self.holds(request):
            self.held.append(request)
            self._released.wait()
        answer = self._app(environ, start_response)
        return self._halve(answer) if self.breaks(request) else answer

    def _halve(self, answer):
        content = b"".join(answer)
        yield content[: len(content) // 2]
        raise ConnectionError


@pytest.fixture(scope="session")
def s3_server():
    server = S3()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def s3(s3_server, monkeypatch):
    """This process and its children use this server only."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3_server.reset()
    yield s3_server
    s3_server.release()


class Objects:
    """What is in the bucket below the prefix."""

    def __init__(self):
        self.client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        self.bucket = f"models-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=self.bucket)

    def _target(self, name):
        return {"Bucket": self.bucket, "Key": f"team/yolo/{name}"}

    def names(self, folder=""):
        answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"team/yolo/{folder}")
        return {one["Key"].removeprefix("team/yolo/") for one in answer.get("Contents", ())}

    def read(self, name):
        return self.client.get_object(**self._target(name))["Body"].read()

    def write(self, name, content):
        self.client.put_object(**self._target(name), Body=content)

    def remove(self, name):
        self.client.delete_object(**self._target(name))

    @property
    def current(self):
        return json.loads(self.read("current"))["manifest"] if "current" in self.names() else None

    @property
    def manifests(self):
        return {name.removeprefix("manifests/").removesuffix(".json") for name in self.names("manifests/")}


@pytest.fixture
def objects(s3):
    return Objects()


@pytest.fixture
def url(objects):
    return f"s3://{objects.bucket}/team/yolo"


@pytest.fixture
def repository(url):
    return Repository(Bucket(BucketUrl.parse(url)))


class Commands:
    """`scripts/models`, in this process or in one of its own."""

    def __init__(self, capfd, folder):
        self._capfd, self._folder, self._started = capfd, folder, []

    def run(self, *arguments):
        """Return the exit status and both outputs."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._capfd.readouterr()
        logging.disable()  # libraries that other tests import let all loggers write to stderr
        try:
            with pytest.raises(SystemExit) as ended:
                main("models", list(map(str, arguments)))
        finally:
            logging.disable(logging.NOTSET)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        output = self._capfd.readouterr()
        assert SECRET not in output.out + output.err
        return ended.value.code, output.out, output.err

    def succeed(self, *arguments):
        status, output, errors = self.run(*arguments)
        assert status == 0, errors + output
        return output

    def fail(self, *arguments, status=1):
        ended, _, errors = self.run(*arguments)
        assert ended == status, errors
        return errors

    def start(self, *arguments):
        log = self._folder / f"log-{len(self._started)}.txt"
        with log.open("w") as output:
            command = [sys.executable, SCRIPT, *map(str, arguments)]
            child = subprocess.Popen(command, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT)
        child.output = log.read_text
        self._started.append(child)
        return child

    def end(self):
        for child in self._started:
            child.kill()
            child.wait()


@pytest.fixture
def models(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = Commands(capfd, tmp_path)
    yield commands
    commands.end()


def write_tree(folder, files):
    """Write files by their paths; a path that ends with a slash is an empty folder."""
    for path, content in files.items():
        if path.endswith("/"):
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def write():
    return write_tree


@pytest.fixture
def source(tmp_path):
    """Two models, an ensemble with an empty version, and a file beside them."""
    files = {
        "detector/config.pbtxt": 'name: "detector"',
        "detector/labels.txt": "cat\ndog\n",
        "detector/1/model.plan": b"plan one" * 1000,
        "encoder/config.pbtxt": 'name: "encoder"',
        "encoder/1/model.plan": b"plan two" * 1000,
        "pipeline/config.pbtxt": 'name: "pipeline"',
        "pipeline/1/": "",
        "README.md": "what is here\n",
    }
    return write_tree(tmp_path / "source", files)


@pytest.fixture
def plan(source):
    return source / "encoder" / "1" / "model.plan"


@pytest.fixture
def served(tmp_path):
    return tmp_path / "served"


def read_tree(folder):
    """Everything below a folder, through links."""
    return {
        str(Path(root, name).relative_to(folder)): Path(root, name).read_bytes() if name in files else None
        for root, folders, files in os.walk(folder, followlinks=True)
        for name in (*folders, *files)
    }


@pytest.fixture
def tree():
    return read_tree
