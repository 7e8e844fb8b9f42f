"""One pod with everything: how it comes up, how it is changed, and what clients notice."""

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.kubernetes.conftest import NAME, ONE_POD
from tests.load import PICTURE, QUESTION

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
CONFIDENCE = ("--set", "changes.detection.confidence=0.3")


def pids(kubernetes):
    """Process ids of the replicas in the head pod, by deployment."""
    (head,) = kubernetes.pods("headgroup")
    listed = kubernetes.kubectl("exec", f"--namespace={NAME}", head, "--", "pgrep", "-af", "^ray::ServeReplica").stdout
    found = {}
    for line in listed.splitlines():
        pid, title = line.split(maxsplit=1)
        found.setdefault(title.split(":")[4].split()[0], set()).add(pid)
    return found


def generations(kubernetes):
    kinds = "rayservices,raycluster,networkpolicies,roles,rolebindings,serviceaccounts,poddisruptionbudgets"
    found = kubernetes.objects(kinds)
    return {
        (one["kind"], one["metadata"]["name"]): (one["metadata"].get("generation"), one["metadata"]["uid"])
        for one in found
    }


def test_it_answers_pictures_chats_and_grpc_as_on_a_laptop(one_pod, kubernetes, deploy):
    assert httpx.post(f"{one_pod}/predict/nano", content=PICTURE, timeout=60).json()["num_detections"] == 6
    answer = httpx.post(f"{one_pod}/v1/chat/completions", json=QUESTION, timeout=60)
    assert answer.json()["choices"][0]["message"]["content"]
    client = triton.InferenceServerClient(f"{one_pod.removeprefix('http://').removesuffix(':8000')}:8001")
    given = triton.InferInput("encoded", [1, len(PICTURE)], "UINT8")
    given.set_data_from_numpy(np.frombuffer(PICTURE, np.uint8)[None])
    assert client.infer("yolo_nano_gpu_e2e", [given]).as_numpy("num_dets") == [[6]]
    assert "serving, 1 endpoint" in deploy("status", *ONE_POD).out


def test_up_again_changes_nothing(one_pod, kubernetes, deploy, case):
    before = generations(kubernetes)
    with case("up without a change"):
        ended = deploy("up", *ONE_POD)
    assert "nothing to do" in ended.out
    assert generations(kubernetes) == before
    assert deploy("diff", *ONE_POD).out.count("\n") == 1


def test_people_may_do_what_their_group_may(one_pod, deploy):
    assert "nothing to do" in deploy("up", *ONE_POD, user="deployer").out
    assert "serving, 1 endpoint" in deploy("status", *ONE_POD, user="viewer").out
    assert "may not" in deploy("up", *ONE_POD, *CONFIDENCE, user="viewer", expect=2).err
    assert "forbidden" in deploy("status", *ONE_POD, user="nobody", expect=2).err


def test_a_changed_default_restarts_what_reads_it_and_no_request_fails(one_pod, kubernetes, deploy, case):
    before, cluster = pids(kubernetes), kubernetes.active_cluster()
    with case("another default confidence, in place", one_pod):
        ended = deploy("upgrade", *ONE_POD, *CONFIDENCE)
    assert "in-place update" in ended.out
    assert kubernetes.active_cluster() == cluster
    after = pids(kubernetes)
    assert {name for name in before if before[name] != after[name]} == {"router", "baseline"}
    assert httpx.get(f"{one_pod}/tracks", timeout=30).is_success
