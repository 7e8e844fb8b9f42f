"""The processes of Triton's Python backend: whether one was killed from outside, or ended of its own."""

from contextlib import suppress

import psutil

COMMAND = "triton_python_b"  # what the kernel keeps of the name
KILLED = (9, 15)  # SIGKILL, also of the kernel when memory is short, and SIGTERM
EXIT_CODE = -1  # the last field of /proc/PID/stat: the status that wait() would give
SIGNAL = 0x7F


def was_killed() -> bool:
    """Whether every dead stub of this process was killed; Triton leaves them as zombies until it stops."""
    signals = [_signal_of(child.pid) for child in psutil.Process().children() if _is_dead_stub(child)]
    return bool(signals) and all(signal in KILLED for signal in signals)


def _is_dead_stub(child: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(child.status() == psutil.STATUS_ZOMBIE and child.name().startswith(COMMAND))
    return False


def _signal_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().split()[EXIT_CODE]) & SIGNAL
    except OSError:
        return 0
