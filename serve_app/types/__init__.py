"""The words that rooms pass to each other: detections, tensors, model changes and deadlines; stdlib and NumPy only."""

from serve_app.types.changes import ModelChange
from serve_app.types.deadlines import left_s, until
from serve_app.types.detections import (
    MAX_PIXELS,
    MAX_PIXELS_VARIABLE,
    Detection,
    ModelCard,
    PictureResult,
    Pixels,
    StageTimes,
    Thresholds,
    TrackAnswer,
)
from serve_app.types.tensors import (
    Buffer,
    InferAnswer,
    InferRequest,
    ParameterValue,
    RequestedOutput,
    Sequence,
    Tensor,
)

__all__ = [
    "MAX_PIXELS",
    "MAX_PIXELS_VARIABLE",
    "Buffer",
    "Detection",
    "InferAnswer",
    "InferRequest",
    "ModelCard",
    "ModelChange",
    "ParameterValue",
    "PictureResult",
    "Pixels",
    "RequestedOutput",
    "Sequence",
    "StageTimes",
    "Tensor",
    "Thresholds",
    "TrackAnswer",
    "left_s",
    "until",
]
