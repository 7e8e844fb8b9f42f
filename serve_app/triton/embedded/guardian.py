"""The process that ends the stubs of a server process that was killed, and removes their shared memory.

An isolated interpreter runs it as a script, so it imports little, and of the standard library only.
"""

import contextlib
import os
import select
import signal
import sys

SHARED_MEMORY = "/dev/shm"
_STUB = b"triton_python_backend_stub"
_CLEAN = b"q"


def stub_pids(prefix: str) -> list[int]:
    """The stubs whose regions have the prefix, each before its descendants."""
    wanted = prefix.encode()
    roots: list[int] = []
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        command = _read(f"/proc/{name}/cmdline")
        if wanted in command and _STUB in command:
            roots.append(int(name))
        children.setdefault(_parent(name), []).append(int(name))
    found: list[int] = []
    while roots:
        pid = roots.pop()
        if pid not in found:
            found.append(pid)
            roots += children.get(pid, [])
    return found


def kill_stubs(prefix: str) -> int:
    """Send SIGKILL, which also ends a stub that is stuck in a model, and return the number of stubs."""
    pids = stub_pids(prefix)
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def remove_regions(prefix: str) -> None:
    for name in os.listdir(SHARED_MEMORY):
        if name.startswith(prefix):
            with contextlib.suppress(OSError):
                os.unlink(f"{SHARED_MEMORY}/{name}")


def start_ticks(pid: int) -> str | None:
    """When a process started, in ticks since boot; None if it is gone or a zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return None if len(fields) < 20 or fields[0] in (b"Z", b"X") else fields[19].decode()


def _parent(pid: str) -> int:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _wait(pid: int, ticks: str, handle: int | None) -> bool:
    """Wait for the end of the process; True if it dismissed the guardian before."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if handle is not None:
        poll.register(handle, select.POLLIN)
    while start_ticks(pid) == ticks:
        # Without a handle (old kernels) look at the process table twice a second.
        for descriptor, _ in poll.poll(None if handle is not None else 500):
            if descriptor == 0:
                if os.read(0, 1) == _CLEAN:
                    return True
                poll.unregister(0)  # closed without a dismissal: wait for the end of the process
    return False


def _clear(prefix: str) -> None:
    """Clean up until nothing is found three times in a row: a stub may just be starting."""
    quiet = 0
    for _ in range(200):
        quiet = 0 if kill_stubs(prefix) else quiet + 1
        remove_regions(prefix)
        if quiet == 3:
            return
        select.select([], [], [], 0.05)


def main(pid: int, ticks: str, prefix: str) -> None:
    handle = None
    with contextlib.suppress(OSError, AttributeError):
        handle = os.pidfd_open(pid)
    if os.fork():
        os._exit(0)  # the guardian must not be a child that someone waits for or kills
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    if not _wait(pid, ticks, handle):
        _clear(prefix)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
