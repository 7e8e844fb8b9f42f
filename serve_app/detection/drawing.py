"""Draws detections onto their picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from serve_app.detection.preprocess import decode
from serve_app.types import Detection

JPEG_QUALITY = 90


def draw(picture: bytes, detections: Sequence[Detection], max_pixels: int) -> bytes:
    """Return the upright picture with boxes and labels, as JPEG."""
    import supervision  # takes over a second to import, and is rarely needed

    pixels = cv2.cvtColor(decode(picture, max_pixels), cv2.COLOR_RGB2BGR)
    height, width = pixels.shape[:2]
    if detections:
        scale = np.array([width, height, width, height], np.float32)
        found = supervision.Detections(
            xyxy=np.array([(d.x1, d.y1, d.x2, d.y2) for d in detections], np.float32) * scale,
            confidence=np.array([d.confidence for d in detections], np.float32),
            class_id=np.array([d.class_id for d in detections]),
        )
        labels = [f"{d.class_name} {d.confidence:.2f}" for d in detections]
        size = (width, height)
        thickness = supervision.calculate_optimal_line_thickness(size)
        text_scale = supervision.calculate_optimal_text_scale(size)
        pixels = supervision.BoxAnnotator(thickness=thickness).annotate(pixels, found)
        pixels = supervision.LabelAnnotator(text_scale=text_scale).annotate(pixels, found, labels)
    encoded, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded
    return jpeg.tobytes()
