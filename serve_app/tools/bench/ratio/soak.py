"""Many requests, and what the service's processes hold before and after them."""

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")
SETTLE_S = 5.0  # for what is freed late


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of a process and all it started."""

    memory_mb: float
    handles: int
    threads: int
    shared_mb: float

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        time.sleep(SETTLE_S)
        root = psutil.Process(pid)
        memory, handles, threads = 0, 0, 0
        for process in [root, *root.children(recursive=True)]:
            try:
                memory += process.memory_full_info().pss  # what several share counts once
                handles += process.num_fds()
                threads += process.num_threads()
            except psutil.NoSuchProcess:
                continue  # short-lived ones count for nothing
        shared = sum(entry.stat().st_blocks * 512 for entry in SHARED_MEMORY.iterdir() if entry.is_file())
        return cls(memory / 1e6, handles, threads, shared / 1e6)
