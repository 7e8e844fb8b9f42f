"""A real S3 API on loopback in a process of its own, the command in others, and a proxy between that can hold them."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60
METHOD = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) ")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret-that-nobody-may-see"}
ENVIRONMENT = {"AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
ENVIRONMENT |= {"AWS_EC2_METADATA_DISABLED": "true"}


def until(happens, what="it"):
    """Wait for what another process or thread brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happens()):
        assert time.monotonic() < deadline, f"{what} didn't happen within {PATIENCE_S} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session", name="until")
def until_fixture():
    return until


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port):
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def s3_port():
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port) or server.poll() is not None, "the start of moto")
        assert server.poll() is None, "moto ended by itself"
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture(autouse=True)
def aws(s3_port, monkeypatch):
    """This process and its children ask the server on loopback, and nobody else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**ENVIRONMENT, **CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(aws):
    return boto3.client("s3", config=Config(s3={"addressing_style": "path"}))


@pytest.fixture
def bucket(s3):
    name = f"models-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def url(bucket):
    return f"s3://{bucket}/team/yolo"


class Objects:
    """What is really in the bucket, below the prefix."""

    def __init__(self, s3, bucket):
        self.s3, self.bucket = s3, bucket

    def names(self, folder=""):
        answer = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"team/yolo/{folder}")
        return {one["Key"].removeprefix("team/yolo/") for one in answer.get("Contents", ())}

    def read(self, name):
        return self.s3.get_object(Bucket=self.bucket, Key=f"team/yolo/{name}")["Body"].read()

    def write(self, name, content):
        self.s3.put_object(Bucket=self.bucket, Key=f"team/yolo/{name}", Body=content)

    def remove(self, name):
        self.s3.delete_object(Bucket=self.bucket, Key=f"team/yolo/{name}")

    def uploads(self):
        """Those in parts that were begun and not completed."""
        return self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])

    def parts(self):
        targets = [{"Bucket": self.bucket, "Key": one["Key"], "UploadId": one["UploadId"]} for one in self.uploads()]
        return [part for target in targets for part in self.s3.list_parts(**target).get("Parts", [])]

    @property
    def current(self):
        return json.loads(self.read("current"))["manifest"] if "current" in self.names() else None


@pytest.fixture
def objects(s3, bucket):
    return Objects(s3, bucket)


class Commands:
    """`scripts/models` in processes of their own."""

    def __init__(self, folder):
        self._folder = folder
        self._started = []

    def run(self, *arguments, **environment):
        """To its end, which has to be an orderly one, whatever its status."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "models"), *map(str, arguments)],
            env=os.environ | environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in said, "a secret was told"
        return done

    def succeed(self, *arguments, **environment):
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def start(self, *arguments, **environment):
        log = self._folder / f"log-{len(self._started)}.txt"
        with log.open("w") as output:
            child = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / "models"), *map(str, arguments)],
                env=os.environ | environment,
                cwd=self._folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        child.said = log.read_text
        self._started.append(child)
        return child

    def end(self):
        for child in self._started:
            child.kill()
            child.wait()


@pytest.fixture
def models(tmp_path):
    commands = Commands(tmp_path)
    yield commands
    commands.end()


def write_tree(folder, files):
    """Files by their paths; a path that ends with a slash is an empty folder."""
    for path, content in files.items():
        if path.endswith("/"):
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture
def write(tmp_path):
    return write_tree


@pytest.fixture
def source(tmp_path):
    """A repository of two models, an ensemble with an empty version, and a file beside them."""
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
def served(tmp_path):
    return tmp_path / "served"


def tree_of(folder):
    """Everything below a folder, through links."""
    return {
        str(Path(root, name).relative_to(folder)): Path(root, name).read_bytes() if name in files else None
        for root, folders, files in os.walk(folder, followlinks=True)
        for name in (*folders, *files)
    }


@pytest.fixture
def tree():
    return tree_of


class Proxy:
    """Between a command and S3: counts, cuts, refuses, and holds what comes after so many bytes."""

    def __init__(self, upstream):
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = threading.Event()
        self._open.set()
        self._held = threading.Event()
        self._sockets = []
        self._lock = threading.Lock()
        self.down = self.up = 0
        self.hold_down_after = self.cut_down_after = None
        self.hold_request = None  # that holds this text; the others go on
        self.refuses = False
        self.requests = b""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def holding(self):
        return not self._open.is_set()

    def release(self):
        self.hold_down_after = self.hold_request = None
        self._open.set()
        self._held.set()

    def lines(self, start):
        """Of the requests that came by, those that start so: `GET /bucket`, `Range:`."""
        return re.findall(rb"(?im)^" + re.escape(start.encode()) + rb".*?\r$", self.requests)

    def _accept(self):
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                caller.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._upstream))
            self._sockets += [caller, server]
            for one, other, way in ((caller, server, "up"), (server, caller, "down")):
                threading.Thread(target=self._pass_on, args=(one, other, way), daemon=True).start()

    def _pass_on(self, one, other, way):
        try:
            while content := one.recv(1 << 14):
                if way == "up":
                    self._note(content)
                self._open.wait()
                other.sendall(content)
                self._count(way, len(content))
        except OSError:
            pass
        for end in (one, other):
            end.close()

    def _note(self, content):
        if METHOD.match(content):
            self.requests += content[: 1 << 12]
            if self.hold_request and self.hold_request in content:
                self._held.wait()

    def _count(self, way, size):
        with self._lock:
            setattr(self, way, getattr(self, way) + size)
            if self.hold_down_after is not None and self.down >= self.hold_down_after:
                self._open.clear()
            if self.cut_down_after is not None and self.down >= self.cut_down_after:
                self.cut_down_after = None
                self.cut()

    def cut(self):
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self):
        self._listener.close()
        self.release()
        self.cut()


@pytest.fixture
def proxy(s3_port):
    proxy = Proxy(s3_port)
    yield proxy
    proxy.close()
