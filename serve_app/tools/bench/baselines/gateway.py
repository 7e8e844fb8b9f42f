"""What went before, rebuilt: FastAPI under uvicorn prepares pictures and asks a tritonserver over gRPC."""

# Not made slow: its own decoding, letterbox and suppression are this project's, its client is Triton's asynchronous
# one, and a thread pool does what would hold up the event loop.

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from fastapi import FastAPI, HTTPException, UploadFile

from serve_app.detection.postprocess import keep_wanted, suppress, to_detections
from serve_app.detection.preprocess import Letterbox, as_unit_planes, decode, letterbox
from serve_app.errors import ServeAppError
from serve_app.settings import MAX_PIXELS
from serve_app.tools.bench.baselines.processes import answers, current_environment, free_port, running
from serve_app.tools.bench.tracks import as_rows
from serve_app.types import Detection, Thresholds

SIDE_PX = 640
LABELS = ()  # classes by their numbers
OUTPUTS = ("num_dets", "det_boxes", "det_scores", "det_classes")


def build() -> FastAPI:
    """What uvicorn's workers each make; where Triton is stands in TRITON_GRPC."""
    clients: list[triton.InferenceServerClient] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        clients.append(triton.InferenceServerClient(os.environ["TRITON_GRPC"]))
        yield
        await clients.pop().close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/predict/{size}")
    async def predict(size: str, image: UploadFile) -> dict[str, Any]:
        try:
            planes, box = await asyncio.to_thread(prepare, await image.read())
            return answer(await infer(clients[0], f"yolo_{size}", planes, box), box)
        except ServeAppError as problem:
            raise HTTPException(problem.status, problem.message) from None

    return app


def prepare(picture: bytes) -> tuple[Any, Letterbox]:
    square, box = letterbox(decode(picture, MAX_PIXELS), SIDE_PX)
    return as_unit_planes(square), box


async def infer(client: triton.InferenceServerClient, model: str, planes: Any, box: Letterbox) -> tuple[Detection, ...]:
    given = triton.InferInput("images", planes.shape, "FP32")
    given.set_data_from_numpy(planes)
    found = await client.infer(model, [given])
    if not model.endswith("_end2end"):
        rows = await asyncio.to_thread(suppress, found.as_numpy("output0")[0], Thresholds())
        return to_detections(*rows, box, LABELS)
    count, boxes, scores, classes = (found.as_numpy(name)[0] for name in OUTPUTS)
    there = int(count[0])
    rows = keep_wanted(boxes[:there], scores[:there], classes[:there].astype(np.int32), Thresholds())
    return to_detections(*rows, box, LABELS)


def answer(detections: tuple[Detection, ...], box: Letterbox) -> dict[str, Any]:
    boxes = as_rows(detections)
    size = {"width": box.width, "height": box.height}
    return {"status": "success", "image": size, "num_detections": len(boxes), "detections": boxes}


@contextmanager
def gateway(triton_grpc: str, workers: int) -> Iterator[str]:
    """Its address, in front of a tritonserver that runs."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "uvicorn", f"{__name__}:build", "--factory", "--port", str(port)]
    command += ["--workers", str(workers), "--no-access-log", "--log-level", "warning"]
    environment = current_environment() | {"TRITON_GRPC": triton_grpc}
    with running("gateway", command, lambda: answers(f"{url}/health"), environment):
        yield url
