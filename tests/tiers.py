"""The tiers of tests, by folder, and the most work that each may do. docs/testing.md says what each tier proves."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Budget:
    """A table of inputs in one test is one case; a start brings up a Ray cluster."""

    cases: int
    starts: int


BUDGETS = {
    "unit": Budget(3400, 0),
    "e2e": Budget(262, 8),
    "chaos": Budget(40, 9),
    "slow": Budget(11, 5),
    "soak": Budget(3, 0),
    "kubernetes": Budget(40, 0),
}


def tier_of(path):
    for tier in ("chaos", "slow", "soak"):
        if path.is_relative_to(TESTS / "e2e" / tier):
            return tier
    if path.is_relative_to(TESTS / "kubernetes"):
        return "kubernetes"
    return "e2e" if path.is_relative_to(TESTS / "e2e") else "unit"


def require_within(paths):
    """`paths` has the file of each case."""
    for tier, cases in Counter(map(tier_of, paths)).items():
        if cases > BUDGETS[tier].cases:
            raise pytest.UsageError(
                f"tier {tier} has {cases} cases, and its budget is {BUDGETS[tier].cases}: "
                "merge near-copies into one case that loops over a table, or raise the budget in tests/tiers.py"
            )


class Starts:
    """Clusters that this session has started, by tier."""

    def __init__(self):
        self._counted = Counter()

    def count(self, tier):
        self._counted[tier] += 1
        most = BUDGETS[tier].starts
        assert self._counted[tier] <= most, (
            f"tier {tier} starts a cluster {self._counted[tier]} times, and its budget is {most}: "
            "use the fixture `service`, or raise the budget in tests/tiers.py"
        )
