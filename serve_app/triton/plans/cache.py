"""Plans on disk: one for each graph, batch sizes, GPU and TensorRT, built once and checked whenever it is asked for."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.child import build_in_child
from serve_app.triton.plans.files import locked, write_whole
from serve_app.triton.plans.gpu import Gpu
from serve_app.triton.plans.progress import Report

# Raise it when other plans are made of the same graphs.
RECIPE = 1
TIMING_CACHE = "timing.cache"


class PlanCache:
    """What the plans of one GPU and one TensorRT are kept in: they run nowhere else."""

    def __init__(self, folder: Path, gpu: Gpu, tensorrt_version: str) -> None:
        """The folder of these plans is made inside of `folder`, which may be shared with other machines."""
        self._gpu = gpu
        self._version = tensorrt_version
        major, minor = gpu.capability
        self.folder = folder / f"{_slug(gpu.name.lower())}-sm{major}{minor}-trt{_slug(tensorrt_version)}"

    def plan_for(self, graph: Path, profile: Profile, report: Report, name: str | None = None) -> Path:
        """The plan's file; `name` is what messages call the graph. Minutes where it has to be built."""
        name = name or graph.name
        plan = self.folder / f"{_key(graph, profile)}.plan"
        if not _is_whole(plan):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                # One build at a time: TensorRT times kernels, and another build beside it would spoil the times.
                with locked(
                    self.folder / "build.lock", lambda: report(f"{name}: waiting for the process that builds plans")
                ):
                    if not _is_whole(plan):
                        self._build(graph, profile, plan, name, report)
            except OSError as problem:
                raise ConfigurationError(
                    f"{self.folder} has no TensorRT plan of {name} and none can be written there "
                    f"({problem.strerror or problem}): make it writable, or build the plan before"
                ) from None
        return plan

    def find(self, graph: Path, profile: Profile) -> Path | None:
        """The plan, if it has been built."""
        plan = self.folder / f"{_key(graph, profile)}.plan"
        return plan if _is_whole(plan) else None

    def _build(self, graph: Path, profile: Profile, plan: Path, name: str, report: Report) -> None:
        """In a scratch folder, the card last: what is cut off anywhere is built again."""
        for left in self.folder.glob(f".{plan.stem}-*"):  # by a process that was killed; the lock says it is gone
            shutil.rmtree(left, ignore_errors=True)
        report(f"{name}: building its plan for {self._gpu.name} with TensorRT {self._version}, once; takes minutes")
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{plan.stem}-") as scratch:
            made = Path(scratch) / plan.name
            build_in_child(graph.absolute(), made.absolute(), profile, self._timing_cache, name, report)
            took_s = time.monotonic() - started
            card = self._card(made, name, profile, took_s)
            _card_of(plan).unlink(missing_ok=True)
            os.replace(made, plan)
        write_whole(_card_of(plan), json.dumps(card, indent=2).encode())
        report(f"{name}: built in {took_s:.0f} s")

    @property
    def _timing_cache(self) -> Path:
        return self.folder.absolute() / TIMING_CACHE

    def _card(self, plan: Path, name: str, profile: Profile, took_s: float) -> dict[str, object]:
        return {
            "graph": name,
            "batches": [profile.min, profile.opt, profile.max],
            "gpu": self._gpu.name,
            "capability": self._gpu.capability,
            "tensorrt": self._version,
            "took_s": round(took_s, 1),
            "size_bytes": plan.stat().st_size,
            "sha256": _sha256(plan),
        }


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def _card_of(plan: Path) -> Path:
    return plan.with_suffix(".json")


def _key(graph: Path, profile: Profile) -> str:
    try:
        with graph.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError as problem:
        raise ModelLoadError(f"graph {graph} can't be read: {problem.strerror}") from None
    digest.update(f"{RECIPE} {profile.min} {profile.opt} {profile.max}".encode())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(plan: Path) -> bool:
    try:
        card = json.loads(_card_of(plan).read_text())
        return bool(plan.stat().st_size == card["size_bytes"] and _sha256(plan) == card["sha256"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or cut off
        return False
