"""The bare loop: decoding, OpenVINO engine and NMS in one process with the same threads, without a server."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov

from serve_app.clients.pictures import read_pictures
from serve_app.detection.postprocess import keep_wanted, to_detections
from serve_app.detection.preprocess import Letterbox, decode, letterbox
from serve_app.tools.bench.detections import as_rows
from serve_app.triton.python_models.graph import compile_graph
from serve_app.types import MAX_PIXELS, Detection, Thresholds


class Loop:
    """This thread decodes pictures while the streams of the engine compute."""

    def __init__(self, folder: Path, labels: tuple[str, ...], side: int, thresholds: Thresholds) -> None:
        compiled = compile_graph(folder, 0, 0)
        self._labels, self._side, self._thresholds = labels, side, thresholds
        given = {"score_threshold": thresholds.confidence, "iou_threshold": thresholds.iou}
        self._given = {name: np.array([value], np.float32) for name, value in given.items()}
        self._streams = ov.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._streams.set_callback(self._finish)
        self.detections: dict[int, tuple[Detection, ...]] = {}  # by picture number
        cv2.setNumThreads(1)

    def run(self, pictures: list[bytes], seconds: float) -> float:
        """Returns pictures per second."""
        self.detections.clear()
        started, done = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            square, box = letterbox(decode(pictures[done % len(pictures)], MAX_PIXELS), self._side)
            self._streams.start_async({"images": square[None], **self._given}, (done, box))
            done += 1
        self._streams.wait_all()
        return done / (time.perf_counter() - started)

    def _finish(self, request: Any, picture: tuple[int, Letterbox]) -> None:
        number, box = picture
        found = {name: request.get_tensor(name).data[0] for name in ("num_dets", "det_boxes", "det_scores")}
        count = int(found["num_dets"][0])
        classes = request.get_tensor("det_classes").data[0][:count].astype(np.int32)
        rows = keep_wanted(found["det_boxes"][:count], found["det_scores"][:count], classes, self._thresholds)
        self.detections[number] = to_detections(*rows, box, self._labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", type=Path, help="folder of a built engine that takes letterboxed bytes")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warmup", type=float, default=2.0)
    options = parser.parse_args()
    card = json.loads((options.engine / "model.json").read_text())
    loop = Loop(options.engine, tuple(card["labels"]), int(card["image_size"]), Thresholds())
    pictures = read_pictures(options.pictures)
    loop.run(pictures, options.warmup)
    rate = loop.run(pictures, options.seconds)
    print(json.dumps({"images/s": rate, "detections": as_rows(loop.detections[0])}))


if __name__ == "__main__":
    main()
