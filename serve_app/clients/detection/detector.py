"""What every way to ask for detections has in common."""

from abc import ABC, abstractmethod
from typing import Any, Self

from serve_app.types import PictureResult, Thresholds

DEFAULTS = Thresholds()


class Detector(ABC):
    """A connection; closed at the end of a `with`."""

    model: str  # which one answers, as soon as that is known

    @abstractmethod
    def detect(self, picture: bytes, thresholds: Thresholds = DEFAULTS) -> PictureResult:
        """The answer, or the error that the server says."""

    @abstractmethod
    def statistics(self) -> dict[str, Any]:
        """Triton's, of the model that answered."""

    @abstractmethod
    def close(self) -> None:
        """Let the connection go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
