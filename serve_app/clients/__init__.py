"""A Python client of the service: detection over REST or KServe v2, and prompts to a language model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_app.clients.detection.kserve import KserveDetector
    from serve_app.clients.detection.rest import RestDetector
    from serve_app.clients.llm.stream import ask

__all__ = ["KserveDetector", "RestDetector", "ask"]

# Imported on first use: a REST client does not load gRPC.
MODULES = {"KserveDetector": "detection.kserve", "RestDetector": "detection.rest", "ask": "llm.stream"}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
