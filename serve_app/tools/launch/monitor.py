"""Prometheus, and Grafana where it is installed, as child processes beside a running service."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import FrameType
from urllib.request import urlopen

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.launch.run import handle_stop_signals

MONITORING = PROJECT_ROOT / "configs" / "monitoring"
DOWNLOADED = PROJECT_ROOT / ".prometheus" / "usr" / "bin"  # where `make monitor` unpacks Debian's package
FIRST_DATA_S = 30.0
SERVICE_METRIC = "ray_serve_application_status"


def find(name: str) -> str:
    """The path of an installed program, or else of the one that `make monitor` has downloaded."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{DOWNLOADED}")
    if not found:
        raise ConfigurationError(f"{name} is not installed; run `make monitor` to download Debian's package")
    return found


class Monitor:
    """Starts the processes, and ends them with this one."""

    def __init__(self, port: int, config: Path, data: Path) -> None:
        self._url = f"http://localhost:{port}"
        data.mkdir(parents=True, exist_ok=True)
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        handle_stop_signals(self._on_signal)
        self._start(
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
            self._start(
                [grafana, "server", "--homepath", home],
                GF_PATHS_PROVISIONING=provisioning,
                SERVE_APP_DASHBOARDS=dashboards,
                GF_PATHS_DATA=str(data.parent / "grafana"),
                GF_SECURITY_ALLOW_EMBEDDING="true",  # Ray's dashboard embeds its panels
                GF_AUTH_ANONYMOUS_ENABLED="true",
            )

    def _start(self, command: list[str], **environment: str) -> None:
        self._children.append(subprocess.Popen(command, env=os.environ | environment, start_new_session=True))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for child in self._children:
            child.terminate()

    def wait(self) -> int:
        """Print the address once there is data, and wait for Ctrl-C; returns the exit status."""
        printed = False
        deadline = time.monotonic() + FIRST_DATA_S
        while all(child.poll() is None for child in self._children):
            if not printed and self._has_data():
                printed = True
                print(
                    f"Prometheus: {self._url}  dashboards: configs/monitoring/grafana  (press Ctrl-C to stop)",
                    flush=True,
                )
            if not printed and time.monotonic() > deadline:
                printed = True
                print(f"Prometheus: {self._url}  no data yet: is the service running?", flush=True)
            time.sleep(0.5)
        for child in self._children:
            child.terminate()
            child.wait()
        return 0 if self._stopping else 1

    def _has_data(self) -> bool:
        try:
            with urlopen(f"{self._url}/api/v1/query?query={SERVICE_METRIC}", timeout=2) as answer:
                return bool(json.load(answer)["data"]["result"])
        except OSError:  # Prometheus is still starting
            return False
