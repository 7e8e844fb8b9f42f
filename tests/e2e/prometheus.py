"""Prometheus beside the service, as `make monitor` starts it, and what tests ask it."""

import math
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.baselines.processes import free_port

PATIENCE_S = 60
VARIABLES = {"$__rate_interval": "15m", "$model": ".*", "$deployment": ".*"}  # the session, seen as one interval


class Prometheus:
    def __init__(self, url):
        self._client = httpx.Client(base_url=url, timeout=30)

    def ask(self, query, path="query", **more):
        """The result of a query; Grafana's variables are filled in as a dashboard does it."""
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        answer = self._client.get(f"/api/v1/{path}", params={"query": query} | more)
        assert answer.status_code == 200, f"{query}: {answer.text}"
        return answer.json()["data"]["result"]

    def has_data(self, query):
        return any(math.isfinite(float(series["value"][1])) for series in self.ask(query))

    def get(self, path):
        return self._client.get(f"/api/v1/{path}").json()["data"]


@contextmanager
def monitoring(folder):
    port = free_port()
    command = [sys.executable, PROJECT_ROOT / "scripts" / "monitor", "--port", str(port), "--data", folder / "data"]
    log = folder / "log"
    with log.open("w") as output:
        monitor = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while "press Ctrl-C to stop" not in log.read_text():
            assert monitor.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"Prometheus saw no service: {log.read_text()}"
            time.sleep(0.3)
        yield Prometheus(f"http://localhost:{port}")
    finally:
        monitor.send_signal(signal.SIGINT)
        assert monitor.wait(30) == 0
