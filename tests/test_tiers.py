"""The budgets of the tiers: what is over one fails, and docs/testing.md has the same numbers."""

import re
from pathlib import Path

import pytest

from tests.tiers import BUDGETS, Budget, Starts, require_within, tier_of

ROOT = Path(__file__).parents[1]


def test_a_tier_with_more_cases_than_its_budget_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(BUDGETS, "e2e", Budget(cases=2, starts=1))
    paths = [ROOT / "tests" / "test_errors.py", *[ROOT / "tests" / "e2e" / "test_x.py"] * 2]
    require_within(paths)
    with pytest.raises(pytest.UsageError, match="tier e2e has 3 cases, and its budget is 2: merge near-copies"):
        require_within([*paths, ROOT / "tests" / "e2e" / "llm" / "test_y.py"])


def test_a_start_over_the_budget_fails_its_test(monkeypatch):
    monkeypatch.setitem(BUDGETS, "e2e", Budget(cases=2, starts=1))
    starts = Starts()
    starts.count("e2e")
    with pytest.raises(AssertionError, match="tier e2e starts a cluster 2 times, and its budget is 1"):
        starts.count("e2e")


def test_a_case_belongs_to_the_tier_of_its_folder():
    for path, tier in {
        "router/test_plane.py": "unit",
        "e2e/ui/test_chat.py": "e2e",
        "e2e/chaos/x.py": "chaos",
        "e2e/slow/x.py": "slow",
    }.items():
        assert tier_of(ROOT / "tests" / path) == tier


def test_the_documented_budgets_are_those_of_the_suite():
    rows = re.findall(r"(?m)^\| (\w+) \|.*\| (\d+) \| (\d+) \|$", (ROOT / "docs" / "testing.md").read_text())
    assert {tier: Budget(int(cases), int(starts)) for tier, cases, starts in rows} == BUDGETS
