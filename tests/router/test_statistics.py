"""Statistics of several replicas, added up as if they were one server's."""

import copy

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


def test_batches_are_added_up_by_their_size_and_stay_in_order():
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


def test_fields_that_only_one_replica_has_are_kept_and_the_rows_given_are_not_changed():
    more = row(sizes=(1, 4), more={"response_stats": {"0": duration(1, 2)}})
    for given in ([[more], [row()]], [[row()], [more]]):
        before = copy.deepcopy(given)
        (merged,) = merge_statistics(given)
        assert merged["response_stats"] == {"0": duration(1, 2)}
        assert given == before
    assert merge_statistics([]) == merge_statistics([[], []]) == []
