"""The command line of `scripts/monitor`: Prometheus, and Grafana where there is one, beside a service that runs."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from urllib.request import urlopen

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT

MONITORING = PROJECT_ROOT / "configs" / "monitoring"
UNPACKED = PROJECT_ROOT / ".prometheus" / "usr" / "bin"  # where `make monitor` puts Debian's package
PATIENCE_S = 30.0
SEEN = "ray_serve_application_status"


def main(description: str, arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=9090, help="Prometheus' port on localhost; default: %(default)s")
    parser.add_argument("--config", type=Path, default=MONITORING / "prometheus.yaml", help="default: %(default)s")
    parser.add_argument(
        "--data",
        type=Path,
        default=PROJECT_ROOT / "runs" / "prometheus",
        help="what was measured; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    try:
        sys.exit(Monitor(options.port, options.config, options.data).until_end())
    except ConfigurationError as problem:
        sys.exit(f"error: {problem}")


def find(name: str) -> str:
    """Of the machine, or else the one that was unpacked here."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{UNPACKED}")
    if not found:
        raise ConfigurationError(f"there is no {name} here: `make monitor` fetches Debian's package")
    return found


class Monitor:
    """Children that end with this process."""

    def __init__(self, port: int, config: Path, data: Path) -> None:
        self._url = f"http://localhost:{port}"
        data.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._begin(
            [
                find("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=localhost:{port}",
                "--web.console.libraries=",
                "--web.console.templates=",
                "--log.level=warn",
            ]
        )
        if grafana := shutil.which("grafana"):
            provisioning = str(MONITORING / "grafana" / "provisioning")
            dashboards = str(MONITORING / "grafana" / "dashboards")
            home = os.environ.get("GF_PATHS_HOME", "/usr/share/grafana")
            self._begin(
                [grafana, "server", "--homepath", home],
                GF_PATHS_PROVISIONING=provisioning,
                SERVE_APP_DASHBOARDS=dashboards,
                GF_PATHS_DATA=str(data.parent / "grafana"),
                GF_SECURITY_ALLOW_EMBEDDING="true",  # Ray's dashboard shows its panels
                GF_AUTH_ANONYMOUS_ENABLED="true",
            )

    def _begin(self, command: list[str], **environment: str) -> None:
        self._children.append(subprocess.Popen(command, env=os.environ | environment, start_new_session=True))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for child in self._children:
            child.terminate()

    def until_end(self) -> int:
        """Tells when there is something to see, then waits for Ctrl-C."""
        told = False
        deadline = time.monotonic() + PATIENCE_S
        while all(child.poll() is None for child in self._children):
            if not told and self._sees_the_service():
                told = True
                print(f"Prometheus: {self._url}  dashboards: configs/monitoring/grafana  (Ctrl-C ends it)", flush=True)
            if not told and time.monotonic() > deadline:
                told = True
                print(f"Prometheus: {self._url}, which sees no service yet: is one running?", flush=True)
            time.sleep(0.5)
        for child in self._children:
            child.terminate()
            child.wait()
        return 0 if self._stopping else 1

    def _sees_the_service(self) -> bool:
        try:
            with urlopen(f"{self._url}/api/v1/query?query={SEEN}", timeout=2) as answer:
                return bool(json.load(answer)["data"]["result"])
        except OSError:  # not up yet
            return False
