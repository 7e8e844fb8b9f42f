"""Messages of the program in Triton's own log."""

from __future__ import annotations

import sys
from pathlib import Path

from .capi import api, check
from .datatypes import LogLevel


def LogMessage(level: LogLevel, message: str) -> None:  # noqa: N802 - the name is NVIDIA's
    """Log a message with the place of the caller, if that level is on."""
    frame = sys._getframe(1)
    filename = Path(frame.f_code.co_filename).name.encode()
    # Triton's log is a C string: what follows a NUL would be lost.
    text = message.replace("\0", "\\0").encode("utf-8", "replace")
    check(api().LogMessage(level, filename, frame.f_lineno, text))
