"""The interface of detection clients."""

from abc import ABC, abstractmethod
from typing import Any, Self

from serve_app.types import PictureResult, Thresholds

DEFAULTS = Thresholds()


class Detector(ABC):
    """A connection to the service; a `with` statement closes it."""

    model: str  # name of the model that answers; empty until it is known

    @abstractmethod
    def detect(self, picture: bytes, thresholds: Thresholds = DEFAULTS) -> PictureResult:
        """Detect objects; raises the error that the server reports."""

    @abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Triton's statistics of the model."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
