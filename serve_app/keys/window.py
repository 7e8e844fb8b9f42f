"""What was counted within the last minute."""

from collections.abc import Mapping

MINUTE_S = 60


class Window:
    """Amounts by the second they were counted in; a second counts until a minute after its end."""

    def __init__(self) -> None:
        self.seconds: dict[int, int] = {}
        self._total = 0

    def add(self, now: float, amount: int) -> None:
        """A negative amount takes back."""
        second = int(now)
        self.seconds[second] = self.seconds.get(second, 0) + amount
        self._total += amount

    def add_all(self, seconds: Mapping[int, int]) -> None:
        for second, amount in seconds.items():
            self.add(second, amount)

    def total(self, now: float) -> int:
        for second in [second for second in self.seconds if second + 1 + MINUTE_S <= now]:
            self._total -= self.seconds.pop(second)
        return self._total

    def room_in_s(self, now: float, most: int, wanted: int) -> float:
        """How long until `wanted` more are within `most`."""
        excess = self.total(now) + min(wanted, most) - most
        for second in sorted(self.seconds):
            if excess <= 0:
                break
            excess -= self.seconds[second]
            ends = second + 1 + MINUTE_S
            if excess <= 0:
                return max(ends - now, 0.0)
        return 0.0

    def empty_in_s(self, now: float) -> float:
        self.total(now)
        return max((second + 1 + MINUTE_S - now for second in self.seconds), default=0.0)
