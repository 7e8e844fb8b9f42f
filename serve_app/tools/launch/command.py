"""The command line of `scripts/serve`: one run of `serve run`, from checks to clean-up."""

import argparse
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from serve_app.errors import ServeAppError
from serve_app.settings import Settings, read_environment_file
from serve_app.tools.launch.leftovers import MARK, end_leftovers
from serve_app.tools.launch.preflight import check, ports_of, require_gpus
from serve_app.tools.launch.watch import read_progress
from serve_app.triton.plans import find_gpu

POLL_S = 1.0


def main(description: str, arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", nargs="?", type=Path, default=Path("configs/serve.yaml"), help="default: %(default)s")
    parser.add_argument("--env", type=Path, default=Path("configs/ray.env"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        config, settings = check(options.config)
        environment = read_environment_file(options.env) | dict(os.environ)
        if environment.get("RAY_ADDRESS", "local") == "local":
            require_gpus(config, settings, find_gpu())
    except ServeAppError as problem:
        sys.exit(f"error: {problem}")
    sys.exit(Run(options.config, environment, ports_of(config), alone_of(settings)).until_end())


def alone_of(settings: Settings) -> frozenset[str]:
    """What may come later, or fail, while the rest is served: the playground, and language models beside pictures."""
    playground = {"playground"} if settings.playground else set()
    languages = {model.name for model in settings.llms} if settings.more_than_languages else set()
    return frozenset(playground | languages)


class Run:
    """`serve run CONFIG` as a child in a session of its own, so that one Ctrl-C reaches it once."""

    def __init__(
        self, config: Path, environment: dict[str, str], ports: dict[str, int], alone: frozenset[str] = frozenset()
    ) -> None:
        """`alone` are the deployments that nothing else waits for."""
        self._name = uuid.uuid4().hex
        self._alone = alone
        self._addresses = f"http://localhost:{ports['http_options.port']}"
        if "grpc_options.port" in ports:
            self._addresses += f", gRPC at localhost:{ports['grpc_options.port']}"
        self._started = time.monotonic()
        self._stopping = False
        # Before the child starts: one that inherits an ignored SIGINT, as under nohup, could never be ended by it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        bin_folder = os.path.dirname(sys.executable)
        # A cluster of its own: ending the run ends Serve there, which in somebody else's would end theirs.
        environment.setdefault("RAY_ADDRESS", "local")
        environment |= {MARK: self._name, "PATH": f"{bin_folder}:{environment.get('PATH', '')}"}
        self._child = subprocess.Popen(
            [os.path.join(bin_folder, "serve"), "run", str(config)], env=environment, start_new_session=True
        )

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """The first asks for an orderly end; the second doesn't wait for it."""
        if self._stopping:
            self._child.kill()
        self._stop()

    def _stop(self) -> None:
        if not self._stopping and self._child.poll() is None:
            self._stopping = True
            self._child.send_signal(signal.SIGINT)

    def until_end(self) -> int:
        try:
            failure = self._watch_start()
        except BaseException:  # whatever it is, Ray must not be left running alone
            self._stop()
            self._child.wait()
            end_leftovers(self._name)
            raise
        if failure:
            self._stop()
        code = self._child.wait()
        killed = end_leftovers(self._name)
        if killed:
            print(f"ended {killed} processes that were left", file=sys.stderr)
        if failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
        if not self._stopping:
            print(f"error: `serve run` ended by itself with status {code}", file=sys.stderr)
            return code if code > 0 else 1
        return 0

    def _watch_start(self) -> str | None:
        """Until all is up, fails or ends; tells which deployments are still to come."""
        waiting: tuple[str, ...] = ()
        told = False
        while self._child.poll() is None and not self._stopping:
            progress = read_progress(self._alone)
            if progress.failure and not told:  # later, Serve mends what it can
                return progress.failure
            missing = tuple(name for name, state in progress.deployments if state != "HEALTHY")
            if progress.up and not told:
                told = True
                self._tell(f"ready in {self._elapsed()}: {self._addresses} (Ctrl-C ends it)")
            if told and progress.deployments and not self._alone & set(missing) - set(progress.failed_alone):
                self._tell_of_the_rest(progress.failed_alone)
                return None
            if missing and missing != waiting:
                waiting = missing
                self._tell(f"waiting for {', '.join(missing)}")
            time.sleep(POLL_S)
        return None

    def _tell_of_the_rest(self, failed: Mapping[str, str]) -> None:
        for name, reason in failed.items():
            self._tell(f"error: {name} is not served, all else is: {reason}")
        if up := sorted(self._alone - set(failed)):
            self._tell(f"ready in {self._elapsed()}: {', '.join(up)}")

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started:.1f} s"

    def _tell(self, line: str) -> None:
        print(line, flush=True)
