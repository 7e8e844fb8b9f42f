"""Detection as a program asks for it: one class a protocol, the same answers from each."""

from serve_app.clients.detection.kserve import KserveDetector
from serve_app.clients.detection.rest import RestDetector

__all__ = ["KserveDetector", "RestDetector"]
