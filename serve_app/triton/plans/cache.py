"""TensorRT plans on disk: one per graph, batch sizes, GPU and TensorRT version, built on first use and then kept."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.child import build_in_child, find_tensorrt
from serve_app.triton.plans.gpu import Gpu, find_gpu, library_version
from serve_app.triton.plans.progress import Report

# Increase it when the same graph must be built differently.
PLANS_VERSION = 1
TIMING_CACHE = "timing.cache"


class LocalPlans:
    """The plans of the GPU that this process would use; neither GPU nor TensorRT is looked up before the first plan."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report

    def plan_for(self, name: str, graph: Path, max_batch: int) -> Path:
        """The plan's file, built if it is missing, for batches up to `max_batch` and fastest at half of it."""
        largest = max(1, max_batch)
        profile = Profile(1, max(1, largest // 2), largest)
        try:
            if self._library and (plan := PlanCache(self._folder, self._gpu, self._library).find(graph, profile)):
                return plan  # without the Python package, which Triton's images lack
            cache = PlanCache(self._folder, self._gpu, self._package)
        except ModelLoadError as problem:
            raise ModelLoadError(f"model {name!r} can't be loaded: {problem}") from None
        return cache.plan_for(graph, profile, self._report, name)

    def missing(self) -> str | None:
        """Why no plan can be built here; None where plans can be built."""
        try:
            _ = self._gpu, self._package
        except ModelLoadError as problem:
            return problem.message
        return None

    @cached_property
    def _gpu(self) -> Gpu:
        gpu = find_gpu()
        if gpu is None:
            raise ModelLoadError("TensorRT's plans are built on the GPU that runs them, but this process finds no GPU")
        return gpu

    @cached_property
    def _library(self) -> str | None:
        """The version of the library that Triton's backend loads."""
        return library_version()

    @cached_property
    def _package(self) -> str:
        """The version of the Python package that builds plans; it must be the version of Triton's library."""
        version = find_tensorrt()
        if version is None:
            wanted = f"=={self._library}" if self._library else " in the version that Triton has"
            raise ModelLoadError(
                f"there is no TensorRT plan for {self._gpu.name}, and the Python package to build it is missing: "
                f"install tensorrt{wanted}, or put model.plan beside model.onnx"
            )
        short = ".".join(version.split(".")[:3])
        if self._library not in (None, short):
            raise ModelLoadError(
                f"TensorRT's Python package has version {version}, but Triton has TensorRT {self._library}: "
                f"install tensorrt=={self._library}"
            )
        return short


class PlanCache:
    """The folder of the plans for one GPU model and one TensorRT version, which run nowhere else."""

    def __init__(self, folder: Path, gpu: Gpu, tensorrt_version: str) -> None:
        """Plans are kept in a subfolder of `folder`, which may be shared with other machines."""
        self._gpu = gpu
        self._version = tensorrt_version
        major, minor = gpu.capability
        self.folder = folder / f"{_slug(gpu.name.lower())}-sm{major}{minor}-trt{_slug(tensorrt_version)}"

    def plan_for(self, graph: Path, profile: Profile, report: Report, name: str | None = None) -> Path:
        """The plan's file, built in minutes if it is missing; `name` is the model's name in messages."""
        name = name or graph.name
        plan = self.folder / f"{_key(graph, profile)}.plan"
        if not _is_complete(plan):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                # One build at a time: TensorRT times kernels, and a second build would distort the times.
                with locked(self.folder / "build.lock", lambda: report(f"{name}: waiting for another build of plans")):
                    if not _is_complete(plan):
                        self._build(graph, profile, plan, name, report)
            except OSError as problem:
                raise ConfigurationError(
                    f"{self.folder} has no TensorRT plan for {name} and can't be written to "
                    f"({problem.strerror or problem}): make it writable, or build the plan in advance"
                ) from None
        return plan

    def find(self, graph: Path, profile: Profile) -> Path | None:
        """The plan's file, or None if it isn't built."""
        plan = self.folder / f"{_key(graph, profile)}.plan"
        return plan if _is_complete(plan) else None

    def _build(self, graph: Path, profile: Profile, plan: Path, name: str, report: Report) -> None:
        """Build in a scratch folder and write the card last, so that an interrupted build is repeated."""
        for leftover in self.folder.glob(f".{plan.stem}-*"):  # of a killed process: the lock is ours
            shutil.rmtree(leftover, ignore_errors=True)
        report(f"{name}: building a plan for {self._gpu.name} with TensorRT {self._version}, which takes minutes")
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{plan.stem}-") as scratch:
            made = Path(scratch) / plan.name
            build_in_child(graph.absolute(), made.absolute(), profile, self._timing_cache, name, report)
            took_s = time.monotonic() - started
            card = self._card(made, name, profile, took_s)
            _card_of(plan).unlink(missing_ok=True)
            os.replace(made, plan)
        write_atomically(_card_of(plan), json.dumps(card, indent=2).encode())
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


def write_atomically(path: Path, data: bytes) -> None:
    """Readers see either the old content or all of the new one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as scratch:
        try:
            scratch.write(data)
            scratch.close()
            os.replace(scratch.name, path)
        finally:
            Path(scratch.name).unlink(missing_ok=True)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file; the kernel releases it when its holder ends, so the file may stay."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    digest.update(f"{PLANS_VERSION} {profile.min} {profile.opt} {profile.max}".encode())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_complete(plan: Path) -> bool:
    try:
        card = json.loads(_card_of(plan).read_text())
        return bool(plan.stat().st_size == card["size_bytes"] and _sha256(plan) == card["sha256"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or incomplete
        return False
