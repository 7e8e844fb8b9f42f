"""Triton's statistics of a model, added up over the replicas of its deployment."""

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
