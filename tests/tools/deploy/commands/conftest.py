"""Runs `scripts/deploy` as a person does, against the API server of these tests."""

import base64
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from serve_app.tools.deploy.scenarios.scenario import read_scenario

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = ROOT / "scripts" / "deploy"
LIMIT_S = 60
APPLY = "application/apply-patch+yaml"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"} | {"PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


class Running:
    """A command that goes on; what it prints is read as it comes."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.lines = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()

    def wait_for(self, pattern):
        """The match in the first line, printed or still to come, that has it."""

        def found():
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._grown:
            assert self._grown.wait_for(found, LIMIT_S), f"never printed {pattern!r}, only {self.lines}"
            return found()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        status = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return Ended(status, "\n".join(self.lines), self.process.stderr.read())


@pytest.fixture
def deploy(kubernetes):
    """`deploy("up", "local-cpu", …)` runs to its end; `deploy.start(…)` only begins."""
    begun = []

    def command(*arguments, kubeconfig=None):
        where = [] if arguments[0] == "render" else ["--kubeconfig", kubeconfig or kubernetes.kubeconfig]
        pace = ["--every", "0.1"] if arguments[0] in ("up", "upgrade", "rollback", "down") else []
        timeout = ["--timeout", "30"] if pace and "--timeout" not in arguments else []
        waits = arguments[0] in ("up", "upgrade", "rollback") and "--settle" not in arguments
        settle = ["--settle", "0.3"] if waits else []
        return [sys.executable, str(SCRIPT), *map(str, arguments), *where, *pace, *timeout, *settle]

    def run(*arguments, kubeconfig=None):
        ended = subprocess.run(
            command(*arguments, kubeconfig=kubeconfig),
            cwd=ROOT,
            env=ENVIRONMENT,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def start(*arguments, kubeconfig=None):
        begun.append(Running(command(*arguments, kubeconfig=kubeconfig)))
        return begun[-1]

    def on_terminal(*arguments, answer=""):
        """What a person sees, colours and all; `answer` is typed before."""
        ours, theirs = pty.openpty()
        environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "200", "LINES": "60"}
        process = subprocess.Popen(
            command(*arguments), cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        os.write(ours, answer.encode())
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        os.close(ours)
        return Ended(process.wait(LIMIT_S), shown.decode(), "")

    run.start, run.on_terminal = start, on_terminal
    yield run
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(LIMIT_S)


@pytest.fixture
def changed(kubernetes):
    """What was asked of the cluster that changes it: (method, path) without dry runs and questions of rights."""

    def found():
        asked = kubernetes.control(requests=True)["requests"]
        return [
            (one["method"], one["path"])
            for one in asked
            if one["method"] != "GET"
            and "selfsubjectaccessreviews" not in one["path"]
            and "dryRun" not in str(one["query"])
        ]

    return found


@pytest.fixture
def secrets(kubernetes):
    """`secrets("yolo-gpu")` makes the Secrets that a scenario refers to."""

    def make(name):
        scenario = read_scenario(name)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scenario.namespace}}
        kubernetes.request("POST", "/api/v1/namespaces", namespace)
        for one in scenario.secrets:
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": one.secret}, "data": {one.key: "eA=="}}
            status, _ = kubernetes.request("POST", f"/api/v1/namespaces/{scenario.namespace}/secrets", secret)
            assert status == 201

    return make


@pytest.fixture
def up(deploy):
    """local-cpu, serving."""
    ended = deploy("up", "local-cpu")
    assert ended.status == 0, ended.out + ended.err
    return ended


@pytest.fixture
def deployer(kubernetes, up):
    """A kubeconfig with no more than the deployers' role, which `up` brought."""
    role = kubernetes.object("Role", "serve-app-deployer", "serve-app")
    rules = [
        {"verbs": one["verbs"], "groups": one["apiGroups"], "resources": one["resources"], "namespaces": ["serve-app"]}
        for one in role["rules"]
    ]
    kubernetes.control(token={"token": "deployer", "user": "dora", "rules": rules})
    return kubernetes.kubeconfig_for("deployer")


REPLICAS = [
    {"replica_id": "v1", "state": "RUNNING", "node_id": "n1", "log_file_path": "/serve/replica_v1.log"},
    {"replica_id": "v2", "state": "STARTING", "node_id": "n2", "log_file_path": "/serve/replica_v2.log"},
]
DEPLOYMENTS = {
    "vision": {"status": "UPDATING", "target_num_replicas": 2, "replicas": REPLICAS},
    "router": {"status": "HEALTHY", "target_num_replicas": 1, "replicas": []},
}


class DashboardAnswers(BaseHTTPRequestHandler):
    """In the shapes of Ray 2.60's dashboard."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.tokens.add(self.headers["Authorization"])
        asked = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(asked.query).items()}
        if self.headers["Authorization"] != "Bearer ray-token":
            self.answer(401, b"Unauthorized: Missing authentication token")
        elif asked.path == "/api/serve/applications/":
            self.answer(200, json.dumps({"applications": {"serve_app": {"deployments": DEPLOYMENTS}}}).encode())
        else:
            self.answer(200, "{filename} of {node_id}, {lines} lines\n".format(**query).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def dashboard(kubernetes, up):
    """A stand-in for Ray's dashboard behind the head pod's port 8265, and its token in KubeRay's Secret."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), DashboardAnswers)
    server.tokens = set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubernetes.control(portforward={"8265": server.server_address[1]})
    status = kubernetes.object("RayService", "serve-app", "serve-app")["status"]
    name = status["activeServiceStatus"]["rayClusterName"]
    data = {"auth_token": base64.b64encode(b"ray-token").decode()}
    path = f"/api/v1/namespaces/serve-app/secrets/{name}"
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    made, _ = kubernetes.request("PATCH", f"{path}?fieldManager=test&force=true", manifest, media=APPLY)
    assert made in (200, 201)
    yield server
    server.shutdown()
    server.server_close()
