"""What runs the tracks of a job: a Triton server in this process, or PyTorch's predictor."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from serve_app.detection.baseline import TorchPredictor
from serve_app.detection.tracks import Track
from serve_app.detection.weights import find_weights
from serve_app.errors import UnavailableError
from serve_app.tools.bench.gpu_check.jobs import Job
from serve_app.triton.detector import Detector
from serve_app.triton.engine import Engine
from serve_app.triton.overlay import Preparation
from serve_app.triton.plans import Report
from serve_app.triton.protocol import Protocol as TritonProtocol
from serve_app.triton.repository import ModelRepository
from serve_app.types import PictureResult, Thresholds

REFUSED_BATCH = "DALI refused a batch"  # the Python backend's reader writes it to Triton's log


class Runner(Protocol):
    @property
    def device(self) -> str: ...

    def precision(self, track: Track) -> str: ...

    def max_batch(self, track: Track) -> int: ...

    def batches(self, track: Track) -> Counter[int]:
        """Executions by batch size, so far."""

    def read_by_dali(self, track: Track) -> int | None:
        """Pictures that DALI has read so far; None if the track does not use DALI."""

    async def detect(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult: ...


class TritonRunner:
    """A context manager: the server starts and stops with it."""

    def __init__(self, job: Job, report: Report) -> None:
        self.device: str = job.detection.runs_on
        self._log = job.log
        self._repository = ModelRepository.of(job.triton, job.detection)
        served = {name: count for name, count in job.triton.instances.items() if name in self._repository.selected}
        triton = job.triton.model_copy(update={"instances": served})
        self._engine = Engine(self._repository, triton, job.log, Preparation.of(triton, job.detection, report))
        self._protocol = TritonProtocol(self._engine)
        self._cards = self._repository.cards()
        self._detector = Detector(self._engine, self._cards, job.detection.max_pixels, job.triton.picture_threads)

    def __enter__(self) -> "TritonRunner":
        self._engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._detector.close()
        self._engine.stop()

    def precision(self, track: Track) -> str:
        return self._cards[track.model].precision

    def max_batch(self, track: Track) -> int:
        return int(self._repository.all[self._engine_of(track)].config.max_batch_size)

    def _engine_of(self, track: Track) -> str:
        steps = self._repository.all[track.model].steps
        return steps[-1] if steps else track.model

    def batches(self, track: Track) -> Counter[int]:
        (statistics,) = self._protocol.statistics(self._engine_of(track))
        return Counter(
            {int(row["batch_size"]): int(row["compute_infer"]["count"]) for row in statistics["batch_stats"]}
        )

    def read_by_dali(self, track: Track) -> int | None:
        """Without the pictures that were read in another way because DALI failed on them or on their batch."""
        steps = self._repository.all[track.model].steps
        if not steps:
            return None
        (statistics,) = self._protocol.statistics(steps[0])
        refused = self._log.read_text(errors="replace").count(REFUSED_BATCH) if self._log.is_file() else 0
        return int(statistics["inference_count"]) - refused

    async def detect(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult:
        return await self._detector.detect(track, picture, thresholds)


class TorchRunner:
    """Track A: one picture after the other, in one thread."""

    def __init__(self, job: Job) -> None:
        self.device: str = job.detection.runs_on
        self._max_pixels = job.detection.max_pixels
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._predictors: dict[str, TorchPredictor] = {}
        for size, source in job.detection.models.items():
            folder = job.detection.weights_folder
            weights = find_weights(source.weights, job.detection.family, size, folder, fetch=False)
            self._predictors[size] = TorchPredictor(
                size, weights.path, job.detection.image_size, source.nms, job.threads
            )

    def require_device(self, picture: bytes) -> None:
        """Ultralytics chooses a device itself, and falls back to the processor silently."""
        import torch

        for predictor in self._predictors.values():
            predictor.predict(picture, Thresholds(), self._max_pixels)
        device = "cuda" if torch.cuda.is_available() and torch.cuda.memory_allocated() else "cpu"
        if device != self.device:
            raise UnavailableError(f"PyTorch's predictor ran on {device}, not on {self.device}")

    def precision(self, track: Track) -> str:
        return self._predictors[track.size].card.precision

    def max_batch(self, track: Track) -> int:
        return 1

    def batches(self, track: Track) -> Counter[int]:
        return Counter()

    def read_by_dali(self, track: Track) -> int | None:
        return None

    async def detect(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult:
        predict = self._predictors[track.size].predict
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, predict, picture, thresholds, self._max_pixels)
