"""Statistics and indexes of several replicas as if they were one server's."""

import copy

from serve_app.router.catalog import merge_indexes
from serve_app.router.statistics import merge_statistics


def duration(count, ns):
    return {"count": count, "ns": ns}


def row(name="m", version="1", last=5, count=2, sizes=(1,), memory=100, more=None):
    return {
        "name": name,
        "version": version,
        "last_inference": last,
        "inference_count": count,
        "execution_count": count,
        "inference_stats": {"success": duration(count, 10 * count), "queue": duration(count, count)},
        "batch_stats": [{"batch_size": size, "compute_infer": duration(1, 7)} for size in sizes],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": memory}],
    } | (more or {})


def test_counts_and_times_are_added_up_and_the_last_inference_is_the_latest():
    (merged,) = merge_statistics([[row(last=5, count=2)], [row(last=9, count=3)], [row(last=7, count=0)]])
    assert (merged["name"], merged["version"], merged["last_inference"]) == ("m", "1", 9)
    assert (merged["inference_count"], merged["execution_count"]) == (5, 5)
    assert merged["inference_stats"] == {"success": duration(5, 50), "queue": duration(5, 5)}
    assert merged["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 300}]


def test_rows_of_batches_are_told_apart_by_their_size_and_stay_in_order():
    (merged,) = merge_statistics([[row(sizes=(2, 16))], [row(sizes=(1, 2))], [row(sizes=())]])
    assert [(entry["batch_size"], entry["compute_infer"]["count"]) for entry in merged["batch_stats"]] == [
        (1, 1), (2, 2), (16, 1),
    ]  # fmt: skip


def test_memory_of_different_devices_is_not_added_up():
    one = row(more={"memory_usage": [{"type": "GPU", "id": 0, "byte_size": 1}]})
    other = row(
        more={"memory_usage": [{"type": "GPU", "id": 1, "byte_size": 2}, {"type": "CPU", "id": 0, "byte_size": 4}]}
    )
    (merged,) = merge_statistics([[one], [other]])
    assert {(entry["type"], entry["id"]): entry["byte_size"] for entry in merged["memory_usage"]} == {
        ("GPU", 0): 1, ("GPU", 1): 2, ("CPU", 0): 4,
    }  # fmt: skip


def test_models_and_versions_are_rows_of_their_own_in_order():
    merged = merge_statistics([[row("b"), row("a", "2")], [row("a", "1"), row("b")]])
    assert [(entry["name"], entry["version"], entry["inference_count"]) for entry in merged] == [
        ("a", "1", 2), ("a", "2", 2), ("b", "1", 4),
    ]  # fmt: skip


def test_what_one_replica_alone_says_is_kept():
    (merged,) = merge_statistics([[row(more={"response_stats": {"0": duration(1, 2)}})], [row()]])
    assert merged["response_stats"] == {"0": duration(1, 2)}
    (merged,) = merge_statistics([[row()], [row(more={"response_stats": {"0": duration(1, 2)}})]])
    assert merged["response_stats"] == {"0": duration(1, 2)}


def test_merging_leaves_what_it_was_given_as_it_is():
    given = [[row()], [row(sizes=(1, 4))]]
    before = copy.deepcopy(given)
    merge_statistics(given)
    assert given == before


def test_no_replicas_and_no_models_are_nothing():
    assert merge_statistics([]) == merge_statistics([[], []]) == []
    assert merge_indexes([]) == merge_indexes([("r1", []), ("r2", [])]) == []


READY = {"name": "m", "version": "1", "state": "READY"}
FAILED = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "no file"}
BARE = {"name": "m"}


def test_replicas_that_agree_are_one_row():
    for agreed in (READY, FAILED, BARE):
        assert merge_indexes([("r1", [agreed]), ("r2", [agreed])]) == [agreed]
    assert merge_indexes([("r1", [BARE])]) == [BARE]


def test_one_replica_that_failed_makes_the_model_fail_with_the_place():
    expected = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "ready on 2 of 3 replicas; r2: no file"}
    assert merge_indexes([("r1", [READY]), ("r2", [FAILED]), ("r3", [READY])]) == [expected]


def test_a_replica_that_has_not_loaded_the_model_yet_keeps_it_loading():
    for other in ([], [BARE]):
        (merged,) = merge_indexes([("r1", other), ("r2", [READY])])
        assert merged == {"name": "m", "version": "1", "state": "LOADING", "reason": "ready on 1 of 2 replicas"}


def test_a_model_that_is_loaded_nowhere_keeps_its_bare_row_and_others_do_not():
    merged = merge_indexes(
        [("r1", [BARE, READY | {"name": "a"}, {"name": "a"}]), ("r2", [BARE, READY | {"name": "a"}])]
    )
    assert merged == [READY | {"name": "a"}, BARE]


def test_versions_are_rows_of_their_own_in_order():
    two, unloaded = READY | {"version": "2"}, READY | {"state": "UNAVAILABLE", "reason": "unloaded"}
    assert merge_indexes([("r1", [two, unloaded]), ("r2", [unloaded, two])]) == [unloaded, two]
