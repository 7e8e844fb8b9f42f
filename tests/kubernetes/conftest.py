"""What tests on the real cluster share: its objects, `scripts/deploy` as a person runs it, and a table of the cases."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.kubernetes.cluster import places
from tests.kubernetes.cluster.__main__ import running
from tests.load import Load

HERE = Path(__file__).parent
TABLE = places.ROOT / "build" / "kubernetes.md"
HEADER = "| case | seconds | requests | failed |\n|---|---|---|---|"
PATIENCE_S = 900
NAMESPACE = NAME = "serve-app"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str
    seconds: float


class Kubernetes:
    """The cluster, by kubectl as its administrator."""

    def kubectl(self, *arguments, user="admin", text=None):
        command = [places.BIN / "kubectl", f"--kubeconfig={places.kubeconfig(user)}", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def read(self, *arguments):
        answer = self.kubectl(*arguments, "--output=json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def objects(self, kind, namespace=NAMESPACE, selector=""):
        return self.read("get", kind, f"--namespace={namespace}", f"--selector={selector}")["items"]

    def object(self, kind, name, namespace=NAMESPACE):
        return self.read("get", kind, name, f"--namespace={namespace}")

    def pods(self, group, namespace=NAMESPACE):
        """Names of the pods of a group that aren't being deleted."""
        found = self.objects("pods", namespace, f"ray.io/group={group}")
        return [one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]]

    def names(self, group, namespace=NAMESPACE):
        return [one["metadata"]["name"] for one in self.objects("pods", namespace, f"ray.io/group={group}")]

    def ready(self, group, namespace=NAMESPACE):
        """Those that are ready, also while they are being deleted."""
        found = self.objects("pods", namespace, f"ray.io/group={group}")
        return [
            one["metadata"]["name"]
            for one in found
            if any(each["type"] == "Ready" and each["status"] == "True" for each in one["status"].get("conditions", []))
        ]

    def apply(self, manifest):
        answer = self.kubectl("apply", "--filename=-", text=json.dumps(manifest))
        assert answer.returncode == 0, answer.stderr

    def active_cluster(self, namespace=NAMESPACE, name=NAME):
        return self.object("rayservice", name, namespace)["status"]["activeServiceStatus"]["rayClusterName"]

    def url(self, namespace=NAMESPACE, name=NAME):
        """By the Service that KubeRay makes, through kube-proxy."""
        return f"http://{self.object('service', f'{name}-serve-svc', namespace)['spec']['clusterIP']}:8000"

    def until(self, holds, what, timeout_s=PATIENCE_S):
        ends = time.monotonic() + timeout_s
        while not (found := holds()):
            assert time.monotonic() < ends, f"not within {timeout_s} s: {what}"
            time.sleep(1)
        return found


@pytest.fixture(scope="session")
def kubernetes():
    if not running():
        pytest.fail("no cluster is running: make kubernetes-up starts it")
    return Kubernetes()


@pytest.fixture(scope="session")
def deploy(kubernetes):
    """`deploy("up", "local-cpu", …)` runs scripts/deploy to its end."""

    def run(*arguments, user="admin", expect=0):
        began = time.monotonic()
        command = [sys.executable, places.ROOT / "scripts" / "deploy", *arguments]
        if arguments[0] != "render":
            command.append(f"--kubeconfig={places.kubeconfig(user)}")
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        found = Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began)
        assert expect is None or found.status == expect, f"{arguments}: {found.status}\n{found.out}\n{found.err}"
        return found

    return run


@pytest.fixture(scope="session")
def table():
    rows = []
    yield rows
    text = "\n".join([HEADER, *rows])
    print(f"\n{text}")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(text + "\n")


@pytest.fixture
def case(table):
    """`with case("an upgrade", url) as load:` runs a constant load, of which nothing may fail; without a URL, none.

    `chats`: how many conversations at a time, if a language model is served.

    `cut`: what had a connection to the process that is killed loses it, and only the client can try again.
    """

    @contextmanager
    def measured(what, url=None, cut=False, chats=1):
        began = time.monotonic()
        if url is None:
            yield None
            table.append(f"| {what} | {time.monotonic() - began:.0f} | | |")
            return
        with Load(url, rate=2, chats=chats).running() as load:  # two clusters at a time share two processors
            time.sleep(5)
            yield load
            time.sleep(5)
        table.append(f"| {what} | {time.monotonic() - began:.0f} | {len(load.outcomes)} | {len(load.failed)} |")
        print(f"\n{table[-1]}")
        answered = [outcome for _, outcome in load.failed if outcome[0].isdigit()]
        assert (answered if cut else load.failed) == []
        assert len(load.outcomes) > 20

    return measured


@pytest.fixture(scope="module")
def one_pod(kubernetes, deploy, table):
    """local-cpu, serving, without keys."""
    ended = deploy("up", *ONE_POD)
    table.append(f"| local-cpu from nothing to serving | {ended.seconds:.0f} | | |")
    answers_chats(kubernetes)
    yield kubernetes.url()
    take_down(deploy, table, "local-cpu", *ONE_POD)


@pytest.fixture(scope="module")
def pictures(kubernetes, deploy, table):
    """One pod with pictures alone, of which several stand on two processors."""
    deploy("up", *PICTURES)
    yield kubernetes.url()
    take_down(deploy, table, "one pod with pictures alone", *PICTURES)


@pytest.fixture(scope="module")
def many_pods(kubernetes, deploy, table):
    """A head without replicas, and pods for routers, pictures and language models."""
    ended = deploy("up", MANY_PODS)
    table.append(f"| a head and three workers from nothing to serving | {ended.seconds:.0f} | | |")
    answers_chats(kubernetes)
    yield kubernetes.url()
    take_down(deploy, table, "a head and its workers", MANY_PODS)


ONE_POD = ("local-cpu", "--set", "keys=null")
NOTHING_ELSE = "changes={llms: [], playground: null, baseline: null}"
PICTURES = (*ONE_POD, "--set", NOTHING_ELSE, "--set", "deletion_delay_s=10", "--set", "head.memory=5Gi")
MANY_PODS = str(HERE / "workers.yaml")


def answers_chats(kubernetes):
    """The language model is ready a while after the pictures."""
    url, question = kubernetes.url(), {"model": "demo-llm", "prompt": "What is Ray?", "max_tokens": 4}

    def answered():
        try:
            return httpx.post(f"{url}/v1/completions", json=question, timeout=30).is_success
        except httpx.HTTPError:
            return False

    kubernetes.until(answered, "a chat is answered")


def take_down(deploy, table, what, *scenario):
    ended = deploy("down", *scenario, "--yes")
    table.append(f"| {what} taken down | {ended.seconds:.0f} | | |")
    assert "is deleted" in ended.out
