"""What the replicas of a deployment say of their models, as if they were one server."""

from collections.abc import Iterable, Sequence
from typing import Any

ROW_NAMES = ("batch_size", "type", "id")


def merge_statistics(replicas: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Counts and times added up, row by row; `last_inference` is the latest."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for rows in replicas:
        for row in rows:
            key = (row["name"], row["version"])
            merged[key] = _add(merged[key], row) if key in merged else row
    return [merged[key] for key in sorted(merged)]


def _add(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    total = dict(one)
    for key, value in other.items():
        have = one.get(key)
        if have is None:
            total[key] = value
        elif key == "last_inference":
            total[key] = max(have, value)
        elif isinstance(value, dict):
            total[key] = _add(have, value)
        elif isinstance(value, list):
            total[key] = _add_rows(have, value)
        elif isinstance(value, int) and key not in ROW_NAMES:
            total[key] = have + value
    return total


def _add_rows(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `batch_stats` and `memory_usage`, which their names and batch sizes tell apart."""
    rows = {_row_key(row): row for row in one}
    for row in other:
        key = _row_key(row)
        rows[key] = _add(rows[key], row) if key in rows else row
    return [rows[key] for key in sorted(rows)]


def _row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(str(row.get(name, "")).zfill(12) for name in ROW_NAMES)


def merge_indexes(replicas: Sequence[tuple[str, list[dict[str, str]]]]) -> list[dict[str, str]]:
    """A row for each version of each model; where replicas differ, its state is the worst and says on which."""
    states: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for replica, rows in replicas:
        for row in rows:
            states.setdefault((row["name"], row.get("version", "")), {})[replica] = row
    # A model that one replica has loaded has a version there, and none on another that hasn't: not a row of its own.
    versioned = {name for name, version in states if version}
    return [_agree(states[key], len(replicas)) for key in sorted(states) if key[1] or key[0] not in versioned]


def _agree(rows: dict[str, dict[str, str]], replicas: int) -> dict[str, str]:
    ready = [replica for replica, row in rows.items() if row.get("state") == "READY"]
    others = {replica: row for replica, row in rows.items() if replica not in ready}
    if len(ready) == replicas or not ready:
        return next(iter(rows.values()))
    row = {key: value for key, value in rows[ready[0]].items() if key in ("name", "version")}
    if not others:
        return row | {"state": "LOADING", "reason": f"ready on {len(ready)} of {replicas} replicas"}
    replica, worst = next(iter(others.items()))
    reason = f"ready on {len(ready)} of {replicas} replicas; {replica}: {worst.get('reason', 'not loaded')}"
    return row | {"state": worst.get("state", "UNAVAILABLE"), "reason": reason}
