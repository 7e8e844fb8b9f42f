"""P6 and P7, without a baseline: the time to start, and the growth of the processes over many requests."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from serve_app.errors import UnavailableError
from serve_app.tools.bench.baselines.service import service
from serve_app.tools.bench.connection import build_post
from serve_app.tools.bench.load import Load, run_http_load
from serve_app.tools.bench.ratio.rounds import Measurement, Side
from serve_app.tools.bench.ratio.sides import Setup, identity_request

TOKEN_TIMEOUT_S = 300.0
SLICE_S = 10.0
IDENTITIES_PER_PICTURE = 49
SHARED_MEMORY = Path("/dev/shm")
SETTLE_S = 5.0  # until memory is given back


def startup(setup: Setup) -> list[Side]:
    """From the start of `serve run` to the first detections, and to the first token of a language model."""
    picture, model = setup.picture, setup.language_model.name
    size = next(iter(setup.settings.detection.models))
    completion = {"model": model, "prompt": "What is vLLM?", "max_tokens": 1}

    def detects(url: str) -> bool:
        return _succeeds(f"{url}/predict/{size}", content=picture)

    def measure() -> Measurement:
        started = time.monotonic()
        with service(setup.config, "service-start", ready=detects) as running:
            first_detection_s = time.monotonic() - started
            while not _succeeds(f"{running.url}/v1/completions", json=completion):
                if time.monotonic() > started + TOKEN_TIMEOUT_S:
                    raise UnavailableError(f"{model} returned no token within {TOKEN_TIMEOUT_S:.0f} s")
                time.sleep(0.2)
            return Measurement({"first detection s": first_detection_s, "first token s": time.monotonic() - started})

    return [Side("start", measure)]


def _succeeds(url: str, **body: object) -> bool:
    try:
        return httpx.post(url, timeout=5, **body).is_success  # type: ignore[arg-type]
    except httpx.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class Footprint:
    """Resources of a process and its descendants."""

    memory_mb: float
    handles: int
    threads: int
    shared_mb: float

    @classmethod
    def of(cls, pid: int, settle_s: float = SETTLE_S) -> "Footprint":
        time.sleep(settle_s)
        root = psutil.Process(pid)
        memory = handles = threads = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                memory += process.memory_full_info().pss  # counts shared pages once
                handles += process.num_fds()
                threads += process.num_threads()
            except psutil.NoSuchProcess:
                continue
        shared = sum(entry.stat().st_blocks * 512 for entry in SHARED_MEMORY.iterdir() if entry.is_file())
        return cls(memory / 1e6, handles, threads, shared / 1e6)


def growth(setup: Setup) -> list[Side]:
    """The footprint after all requests, divided by the footprint after a tenth of them."""
    picture = build_post(setup.url, setup.track("D3").path, setup.picture)
    requests = [identity_request(setup.url)] * IDENTITIES_PER_PICTURE + [picture]

    def send(count: int) -> int:
        """Returns how many requests failed."""
        sent = failed = 0
        while sent < count:
            result = run_http_load(setup.url, requests, Load(setup.load.clients, SLICE_S, 0.0))
            failed += result.errors.total()
            sent += len(result.latencies_ms) + result.errors.total()
        return failed

    def measure() -> Measurement:
        failed = send(setup.requests // 10)
        before = asdict(Footprint.of(setup.pid))
        failed += send(setup.requests)
        after = asdict(Footprint.of(setup.pid))
        ratios = {kind: after[kind] / before[kind] for kind in before}
        return Measurement(ratios, (f"{failed} requests failed",) if failed else (), failed)

    return [Side("growth", measure)]
