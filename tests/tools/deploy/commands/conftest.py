"""Runs `scripts/deploy` against the API server of these tests."""

import base64
import contextlib
import io
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

from serve_app.tools.deploy.cli import main
from serve_app.tools.deploy.scenarios.scenario import read_scenario

ROOT = Path(__file__).resolve().parents[4]
LIMIT_S = 60
ROLLOUTS = ("up", "upgrade", "rollback", "scale")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"} | {"PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str = ""


class Running:
    """A process whose output is read as it comes."""

    def __init__(self, command):
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)
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


def completed(arguments, kubeconfig):
    """With the cluster, and short times; local-cpu without keys, as most tests have no Secret for them."""
    command, *_ = arguments
    if "local-cpu" in arguments and command != "render":
        arguments = (*arguments, "--set", "keys=null")
    more = [] if command in ("render", "") else ["--kubeconfig", kubeconfig]
    if command in (*ROLLOUTS, "down"):
        more += ["--every", "0.02"]
        more += [] if "--timeout" in arguments else ["--timeout", "30"]
    if command in ROLLOUTS and "--settle" not in arguments:
        more += ["--settle", "0.1"]
    return [*map(str, arguments), *map(str, more)]


@pytest.fixture
def deploy(kubernetes):
    """`deploy("up", "local-cpu", …)` runs in this process, `deploy.start(…)` and `.on_terminal(…)` in another."""
    started = []

    def run(*arguments, kubeconfig=None):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main("deploy", completed(arguments, kubeconfig or kubernetes.kubeconfig))
        return Ended(ended.value.code, out.getvalue(), err.getvalue())

    def script(arguments):
        return [sys.executable, str(ROOT / "scripts" / "deploy"), *completed(arguments, kubernetes.kubeconfig)]

    def start(*arguments):
        started.append(Running(script(arguments)))
        return started[-1]

    def on_terminal(*arguments, answer=""):
        """What a person sees; `answer` is typed before."""
        ours, theirs = pty.openpty()
        environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "200", "LINES": "60"}
        process = subprocess.Popen(
            script(arguments), cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        os.write(ours, answer.encode())
        shown = b""
        with contextlib.suppress(OSError):  # raised at the end of a terminal's output
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        os.close(ours)
        return Ended(process.wait(LIMIT_S), shown.decode())

    run.start, run.on_terminal = start, on_terminal
    yield run
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(LIMIT_S)


@pytest.fixture
def changed(kubernetes):
    """Requests that changed the cluster: (method, path) without dry runs and access reviews."""

    def found():
        return [
            (one["method"], one["path"])
            for one in kubernetes.control(requests=True)["requests"]
            if one["method"] != "GET" and "accessreviews" not in one["path"] and "dryRun" not in str(one["query"])
        ]

    return found


@pytest.fixture
def namespace(kubernetes):
    """The namespace serve-app, created by somebody else."""
    kubernetes.create("/api/v1/namespaces", {"metadata": {"name": "serve-app"}})


@pytest.fixture
def secrets(kubernetes, namespace):
    """The namespace and Secrets that yolo-gpu refers to."""
    for one in read_scenario("yolo-gpu").secrets:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": one.secret}, "data": {one.key: "eA=="}}
        kubernetes.create("/api/v1/namespaces/serve-app/secrets", secret)


@pytest.fixture
def up(deploy, kubernetes):
    """local-cpu, serving."""
    if not kubernetes.control(restore="up")["restore"]:
        ended = deploy("up", "local-cpu")
        assert ended.status == 0, ended.out + ended.err
        kubernetes.control(save="up")


@pytest.fixture
def broken(deploy, kubernetes):
    """`broken(trouble="image_pull")`: local-cpu applied and in that state, without waiting for it."""

    def apply(until, scenario="local-cpu", **trouble):
        kubernetes.control(**trouble)
        assert deploy("up", scenario, "--no-wait").status == 0
        return kubernetes.until(lambda: (seen := deploy("status", scenario)) and until in seen.out and seen)

    return apply


@pytest.fixture
def deployer(kubernetes, up):
    """A kubeconfig with no more than the deployers' role, which `up` created."""
    rules = [
        {"verbs": one["verbs"], "groups": one["apiGroups"], "resources": one["resources"], "namespaces": ["serve-app"]}
        for one in kubernetes.object("Role", "serve-app-deployer", "serve-app")["rules"]
    ]
    return kubernetes.user("deployer", *rules)


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
    (cluster,) = kubernetes.objects("RayCluster", "serve-app")
    name = cluster["metadata"]["name"]
    token = {"data": {"auth_token": base64.b64encode(b"ray-token").decode()}}
    kubernetes.merge(f"/api/v1/namespaces/serve-app/secrets/{name}", token)
    yield server
    server.shutdown()
    server.server_close()
