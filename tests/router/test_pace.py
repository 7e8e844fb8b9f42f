"""A queue of pictures ends where its wait would, also when what answers them stalls or dies."""

import random

import pytest

from serve_app.errors import QueueFullError
from serve_app.router.pace import Pace


class Server:
    """Requests arrive at a rate, and are answered in order at another, on a clock of the test's own."""

    def __init__(self, max_wait_s=5):
        self.pace, self.now, self.waits, self.refused = Pace(max_wait_s), 1000.0, [], 0
        self.queue, self._credit, self._chance = [], 0.0, random.Random(3)

    def run(self, seconds, arriving, answering):
        ends, step = self.now + seconds, 0.01
        while self.now < ends:
            if self._chance.random() < arriving * step:
                try:
                    self.pace.begin(self.now)
                    self.queue.append(self.now)
                except QueueFullError:
                    self.refused += 1
            self._credit = min(self._credit + answering * step, 1 if not self.queue else 100)
            while self.queue and self._credit >= 1:
                began = self.queue.pop(0)
                self.pace.end(began, self.now)
                self.waits.append(self.now - began)
                self._credit -= 1
            self.now += step


def with_a_queue():
    """Ninety of a hundred requests still wait, and the ten that were answered took nine seconds."""
    pace = Pace(5)
    for number in range(100):
        pace.begin(1000 + number / 10)
    for number in range(10):
        pace.end(1000, 1009 + number / 10)
    return pace


def test_at_five_times_what_is_possible_those_that_are_taken_wait_no_longer_than_configured():
    server = Server()
    server.run(60, arriving=90, answering=18)
    assert max(server.waits) < 5 * 1.5
    assert len(server.waits) > 0.95 * 60 * 18
    server.refused = 0
    server.run(10, arriving=0.5, answering=18)
    assert server.refused == 0
    assert server.waits[-1] < 0.1


def test_below_what_is_possible_nothing_is_refused():
    server = Server()
    server.run(120, arriving=15, answering=18)
    assert server.refused == 0


def test_a_pause_as_when_a_replica_is_replaced_refuses_nothing():
    server = Server()
    server.run(20, arriving=6, answering=18)
    server.run(8, arriving=6, answering=0)
    server.run(40, arriving=6, answering=18)
    assert server.refused == 0


def test_what_is_stuck_keeps_nobody_out_while_others_are_answered_quickly():
    pace, now = Pace(5), 1000.0
    for number in range(2000):
        now = 1000 + number / 10
        pace.begin(now)
        if number % 2:
            pace.end(now, now + 0.05)


def test_what_waits_for_a_replica_keeps_nobody_out():
    pace = Pace(5)
    for number in range(500):
        pace.begin(1000 + number / 10)


def test_quick_refusals_further_on_are_no_answers():
    pace = with_a_queue()
    for _ in range(20):
        pace.end(1009.9, 1009.91, answered=False)
    with pytest.raises(QueueFullError):
        pace.begin(1010)


def test_a_sudden_crowd_is_seen_before_its_first_answers():
    pace = Pace(5)
    for _ in range(30):
        pace.begin(1000)
    with pytest.raises(QueueFullError):
        pace.begin(1000)


def test_a_refusal_says_how_many_are_before():
    pace = with_a_queue()
    with pytest.raises(QueueFullError, match="90 requests are before this one, which would wait longer than 5 s"):
        pace.begin(1010)
