"""Detection over KServe v2, on this service or any Triton server."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
from google.protobuf.json_format import MessageToDict
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serve_app.clients.detection.detector import DEFAULTS, Detector
from serve_app.clients.errors import GRPC_STATUS, error_of, unreachable
from serve_app.detection.postprocess import keep_wanted, suppress, to_detections
from serve_app.detection.preprocess import Letterbox, as_unit_planes, decode, letterbox
from serve_app.errors import InvalidRequestError, UnreadableImageError
from serve_app.keys.headers import key_headers
from serve_app.types import MAX_PIXELS, PictureResult, StageTimes, Thresholds

SIDE = 640  # pixels of the letterboxed square, unless the model's metadata gives another size


class KserveDetector(Detector):
    """For models that take letterboxed squares (`images` → `output0`, decoded here) or whole pictures (→ boxes)."""

    def __init__(
        self,
        url: str = "localhost:8000",
        model: str = "yolo",
        protocol: Literal["http", "grpc"] = "http",
        labels: Sequence[str] = (),
        timeout_s: float = 60.0,
        key: str = "",
    ) -> None:
        self.model = model
        self._labels = labels
        self._url, self._timeout_s = url, timeout_s
        self._transport: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
        self._headers = key_headers(key)
        limits = {"network_timeout": timeout_s} if protocol == "http" else {}
        self._client = self._transport.InferenceServerClient(url, **limits)
        self._whole, self._side = self._read_metadata()

    def _read_metadata(self) -> tuple[bool, int]:
        (given, *more) = self._document("get_model_metadata")["inputs"]
        shape = [int(size) for size in given["shape"]]
        if not more and given["datatype"] == "UINT8":
            return True, SIDE
        if not more and given["datatype"] == "FP32" and shape[-3:-2] == [3]:
            return False, shape[-1] if shape[-1] > 0 else SIDE
        raise InvalidRequestError(
            f"model '{self.model}' can't detect: it needs one input, UINT8 (an encoded picture) or FP32 with 3 channels"
        )

    def detect(self, picture: bytes, thresholds: Thresholds = DEFAULTS) -> PictureResult:
        return self._pipeline(picture, thresholds) if self._whole else self._engine(picture, thresholds)

    def _engine(self, picture: bytes, thresholds: Thresholds) -> PictureResult:
        began = time.perf_counter()
        pixels = decode(picture, MAX_PIXELS)
        decoded = time.perf_counter()
        square, box = letterbox(pixels, self._side)
        planes = as_unit_planes(square)
        prepared = time.perf_counter()
        outputs = self._infer("images", planes)
        answered = time.perf_counter()
        head = next(iter(outputs.values()))[0].astype(np.float32)
        found = to_detections(*suppress(head, thresholds), box, self._labels)
        marks = (began, decoded, prepared, answered, time.perf_counter())
        decode_ms, preprocess_ms, infer_ms, postprocess_ms = (float(ms) for ms in np.diff(marks) * 1e3)
        times = StageTimes(decode_ms, preprocess_ms, 0.0, infer_ms, postprocess_ms)
        return PictureResult(box.width, box.height, found, times)

    def _pipeline(self, picture: bytes, thresholds: Thresholds) -> PictureResult:
        began = time.perf_counter()
        limits = {"score_threshold": repr(thresholds.confidence), "iou_threshold": repr(thresholds.iou)}
        try:
            outputs = self._infer("encoded", np.frombuffer(picture, np.uint8)[None], limits)
        except InvalidRequestError as problem:  # the tensor is valid, so the picture is not
            raise UnreadableImageError(problem.message) from None
        answered = time.perf_counter()
        width, height = (int(size) for size in outputs["original_size"][0])
        count = int(outputs["num_dets"][0, 0])
        boxes, scores, classes = (outputs[name][0, :count] for name in ("det_boxes", "det_scores", "det_classes"))
        box = Letterbox.fit(width, height, self._side)
        found = to_detections(*keep_wanted(boxes, scores, classes, thresholds), box, self._labels)
        times = StageTimes(infer=(answered - began) * 1e3, postprocess=(time.perf_counter() - answered) * 1e3)
        return PictureResult(width, height, found, times)

    def _infer(
        self, name: str, tensor: npt.NDArray[Any], parameters: dict[str, str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        given = self._transport.InferInput(name, tensor.shape, np_to_triton_dtype(tensor.dtype))
        given.set_data_from_numpy(tensor)
        answer = self._call("infer", inputs=[given], parameters=parameters)
        response = answer.get_response()
        rows = response["outputs"] if isinstance(response, dict) else response.outputs
        names = [row["name"] if isinstance(row, dict) else row.name for row in rows]
        return {output: answer.as_numpy(output) for output in names}

    def statistics(self) -> dict[str, Any]:
        return self._document("get_inference_statistics")

    def _document(self, method: str) -> dict[str, Any]:
        answer = self._call(method)
        if isinstance(answer, dict):
            return answer
        return dict(MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))

    def _call(self, method: str, **arguments: Any) -> Any:
        if self._transport is tritonclient.grpc:
            arguments["client_timeout"] = self._timeout_s
        try:
            return getattr(self._client, method)(self.model, headers=self._headers, **arguments)
        except InferenceServerException as problem:
            status = str(problem.status() or "500").removeprefix("StatusCode.")
            number = GRPC_STATUS.get(status) or (int(status) if status.isdecimal() else 500)
            raise error_of(number, problem.message()) from None
        except OSError as problem:
            raise unreachable(self._url, problem) from None

    def close(self) -> None:
        self._client.close()
