"""Runs a folder's weights with PyTorch, and NMS on the same device where the model has it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
import torchvision
from ultralytics import YOLO

MAX_DETECTIONS = 300
CLASS_OFFSET_PX = 7680.0  # as in the graphs, one NMS keeps classes apart by moving their boxes
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class TorchRunner:
    """Convolutions run in the card's precision; ultralytics' head decodes boxes, and NMS runs, in FP32."""

    def __init__(self, folder: Path, device: str, outputs: Sequence[str]) -> None:
        weights, card = folder / "model.pt", json.loads((folder / "model.json").read_text())
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no GPU: install the driver, and a PyTorch built for CUDA")
        network = YOLO(weights, task="detect").model
        network.end2end = not card["nms"]
        torch.backends.cudnn.allow_tf32 = False  # FP32 means FP32
        # on a CPU FP16 is slower than FP32
        self._type = torch.float32 if (device, card["precision"]) == ("cpu", "f16") else TYPES[card["precision"]]
        self._network = network.fuse(verbose=False).eval().to(device=device, dtype=self._type)
        head = self._network.model[-1].float()  # half precision can't tell 600.1 from 600.4
        head.register_forward_pre_hook(lambda _module, given: ([features.float() for features in given[0]],))
        self._device = device
        self._suppresses = "num_dets" in outputs

    @torch.inference_mode()
    def run(self, images: npt.NDArray[Any], thresholds: tuple[float, float]) -> Sequence[npt.NDArray[Any]]:
        pixels = torch.from_numpy(images).to(self._device)
        if pixels.dtype == torch.uint8:
            pixels = pixels.permute(0, 3, 1, 2).float() / 255
        head = self._network(pixels.to(self._type).contiguous())
        head = (head[0] if isinstance(head, (tuple, list)) else head).float()
        found = suppressed(head, *thresholds) if self._suppresses else (head,)
        return [one.cpu().numpy() for one in found]


def suppressed(head: torch.Tensor, score: float, iou: float) -> tuple[torch.Tensor, ...]:
    """`num_dets`, `det_boxes`, `det_scores` and `det_classes` of every picture, with one NMS for all."""
    pictures = len(head)
    counts = torch.zeros((pictures, 1), dtype=torch.int32, device=head.device)
    rows = torch.zeros((pictures, MAX_DETECTIONS, 6), device=head.device)
    for number, of_one in enumerate(kept_rows(head, score, iou)):
        counts[number], rows[number, : len(of_one)] = len(of_one), of_one
    return counts, rows[..., :4].contiguous(), rows[..., 4].contiguous(), rows[..., 5].int()


def kept_rows(head: torch.Tensor, score: float, iou: float) -> Sequence[torch.Tensor]:
    """The rows of box, score and class of each picture, best first."""
    if head.shape[-1] == 6:  # an end-to-end head: rows are final and sorted
        return [of_one[of_one[:, 4] > score][:MAX_DETECTIONS] for of_one in head]
    best, labels = head[:, 4:].max(dim=1)
    picture, anchor = torch.nonzero(best > score, as_tuple=True)
    boxes, scores, labels = head[picture, :4, anchor], best[picture, anchor], labels[picture, anchor].float()
    half = boxes[:, 2:] / 2
    corners = torch.cat((boxes[:, :2] - half, boxes[:, :2] + half), dim=1)
    apart = corners + labels[:, None] * CLASS_OFFSET_PX
    # In FP64, because pictures are moved apart too: with 64 pictures and 80 classes FP32 would round boxes to 4 px.
    kept = torchvision.ops.batched_nms(apart.double(), scores.double(), picture, iou)  # sorted by score
    rows = torch.cat((corners, scores[:, None], labels[:, None]), dim=1)[kept]
    return [rows[picture[kept] == number][:MAX_DETECTIONS] for number in range(len(head))]
