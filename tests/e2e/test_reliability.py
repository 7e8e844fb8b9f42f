"""What is left when things are killed: nothing, and the service comes back."""

import os
import signal
from pathlib import Path

import pytest
from ultralytics import ASSETS

from serve_app.triton.embedded import guardian

pytestmark = pytest.mark.e2e
BUS = (ASSETS / "bus.jpg").read_bytes()


def regions_of(pid):
    return [name for name in os.listdir("/dev/shm") if f"_{pid}_" in name]


def stubs_of(pid):
    return [stub for name in regions_of(pid) for stub in guardian.stub_pids(name.rpartition("_")[0])]


def children_of(pid):
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and parent_of(entry) == pid]


def parent_of(entry):
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def gone(pid):
    return guardian.start_ticks(pid) is None


def answers(client):
    try:
        return client.post("/predict/nano_gpu_e2e", content=BUS).status_code == 200
    except OSError:
        return False


def test_a_killed_replica_leaves_no_stub_and_no_shared_memory_and_is_replaced(service, client, wait_for):
    (replica,) = service.replicas("vision")
    stubs = [child for child in children_of(replica) if b"stub" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(stubs) >= 7
    assert len(regions_of(replica)) >= 7
    os.kill(replica, signal.SIGKILL)
    wait_for(lambda: all(gone(stub) for stub in stubs), 10, "every stub has ended")
    wait_for(lambda: regions_of(replica) == [], 10, "no shared memory is left")
    wait_for(lambda: answers(client), 90, "another replica answers")
    (fresh,) = service.replicas("vision")
    assert fresh != replica


def test_a_model_whose_process_is_killed_is_noticed_and_the_replica_replaced(service, client, wait_for):
    (replica,) = service.replicas("vision")
    for child in children_of(replica):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"stub" in command and b"yolo_nano_end2end/" in command:
            os.kill(child, signal.SIGKILL)
            break
    else:
        pytest.fail("no stub of yolo_nano_end2end")
    wait_for(lambda: client.post("/predict/nano_end2end", content=BUS).status_code in (500, 503), 60, "it is noticed")
    wait_for(lambda: client.post("/predict/nano_end2end", content=BUS).status_code == 200, 120, "it is replaced")
    assert service.replicas("vision") != [replica]
