"""The stack that the service replaces: FastAPI under uvicorn prepares pictures and calls a tritonserver over gRPC."""

# A fair opponent: it uses this project's decoding, letterbox and NMS, Triton's asynchronous client, and threads for
# work that would block the event loop.

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from fastapi import FastAPI, HTTPException, UploadFile

from serve_app.detection.postprocess import keep_wanted, to_detections
from serve_app.detection.preprocess import Letterbox, as_unit_planes, decode, letterbox
from serve_app.errors import ServeAppError
from serve_app.tools.bench.baselines.processes import answers, current_environment, free_port, running
from serve_app.tools.bench.detections import as_rows
from serve_app.types import MAX_PIXELS, Detection, Thresholds

SIDE_PX = 640
LABELS = ()  # classes are named by their numbers
OUTPUTS = ("num_dets", "det_boxes", "det_scores", "det_classes")


def build() -> FastAPI:
    """The application of each uvicorn worker; TRITON_GRPC is the address of Triton."""
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
            return build_response(await infer(clients[0], f"yolo_{size}", planes, box), box)
        except ServeAppError as problem:
            raise HTTPException(problem.status, problem.message) from None

    return app


def prepare(picture: bytes) -> tuple[Any, Letterbox]:
    square, box = letterbox(decode(picture, MAX_PIXELS), SIDE_PX)
    return as_unit_planes(square), box


async def infer(client: triton.InferenceServerClient, model: str, planes: Any, box: Letterbox) -> tuple[Detection, ...]:
    """With an engine that does NMS, as in track C."""
    tensor = triton.InferInput("images", planes.shape, "FP32")
    tensor.set_data_from_numpy(planes)
    found = await client.infer(model, [tensor])
    count, boxes, scores, classes = (found.as_numpy(name)[0] for name in OUTPUTS)
    kept = int(count[0])
    rows = keep_wanted(boxes[:kept], scores[:kept], classes[:kept].astype(np.int32), Thresholds())
    return to_detections(*rows, box, LABELS)


def build_response(detections: tuple[Detection, ...], box: Letterbox) -> dict[str, Any]:
    boxes = as_rows(detections)
    size = {"width": box.width, "height": box.height}
    return {"status": "success", "image": size, "num_detections": len(boxes), "detections": boxes}


@contextmanager
def gateway(triton_grpc: str, workers: int) -> Iterator[str]:
    """Yields the address of a gateway to a running tritonserver."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "uvicorn", f"{__name__}:build", "--factory", "--port", str(port)]
    command += ["--workers", str(workers), "--no-access-log", "--log-level", "warning"]
    environment = current_environment() | {"TRITON_GRPC": triton_grpc}
    with running("gateway", command, lambda: answers(f"{url}/health"), environment):
        yield url
