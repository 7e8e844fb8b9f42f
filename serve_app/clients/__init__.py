"""What a person or a program runs against a server that is up: nothing here imports the server."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve_app.clients.detection.kserve import KserveDetector
    from serve_app.clients.detection.rest import RestDetector
    from serve_app.clients.llm.asking import ask

__all__ = ["KserveDetector", "RestDetector", "ask"]

# Found on first use: nobody pays for the libraries of a protocol that isn't spoken.
PLACES = {"KserveDetector": "detection.kserve", "RestDetector": "detection.rest", "ask": "llm.asking"}


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
