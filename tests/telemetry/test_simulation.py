"""A policy on series of load, with Ray's delays and bounds around it."""

import itertools
import math

import pytest


def test_a_burst_asks_for_a_replica_within_one_look_back(simulate):
    fleet = simulate()
    assert set(fleet.run(40, 2)) == {1}
    asked = fleet.run(fleet.config.look_back_period_s, 60)
    assert asked[-1] > 1


def test_a_burst_is_served_in_the_end_and_never_by_more_than_the_most(simulate):
    fleet = simulate(max_replicas=4)
    fleet.run(30, 2)
    asked = fleet.run(120, 60)
    assert max(asked) == 4
    assert all(replica.waiting < 1 for replica in fleet.replicas)


def test_a_burst_of_any_height_ends_at_the_most(simulate):
    fleet = simulate(max_replicas=3)
    assert max(fleet.run(180, 1000)) == 3
    assert fleet.asked == 3


def test_a_backlog_of_an_old_replica_does_not_count_again_when_new_ones_have_come(simulate):
    fleet = simulate(max_replicas=50)
    fleet.run(30, 2)
    assert max(fleet.run(200, 60)) <= 8, "three replicas' work, found by doubling and once more at most"


def test_a_ramp_is_followed(simulate):
    fleet = simulate(max_replicas=10)
    asked = fleet.run(400, lambda t: 5 + t / 4)
    needed = [math.ceil((5 + max(0, tick / 2 - 20) / 4) / fleet.rate) for tick in range(len(asked))]
    assert all(one >= other for one, other in zip(asked, needed, strict=True)), "never more than 20 s behind"
    assert max(asked) <= 8


def test_a_stall_asks_for_more(simulate):
    fleet = simulate()
    fleet.run(20, 10)
    asked = fleet.run(30, 0.2, stalled=True)
    assert asked[-1] > 1


def test_noise_around_the_target_changes_nothing(simulate):
    fleet = simulate(initial_replicas=3)
    fleet.run(600, 30, noise_ms=lambda t: 8 + 2.5 * math.sin(t / 7))
    assert fleet.counts == {"up": 0, "down": 0}


def test_spikes_shorter_than_the_delay_change_nothing(simulate):
    fleet = simulate(initial_replicas=3, look_back_period_s=5.0, metrics_interval_s=1.0, upscale_delay_s=15.0)
    fleet.run(600, 30, noise_ms=lambda t: 60 if t % 40 < 2 else 7)
    assert fleet.counts == {"up": 0, "down": 0}


@pytest.mark.parametrize("load", [25, 50, 90])
def test_a_constant_load_does_not_swing(simulate, load):
    fleet = simulate()
    fleet.run(300, load)
    before = fleet.counts.copy()
    asked = fleet.run(550, load)
    assert fleet.counts["up"] - before["up"] <= 1
    assert max(asked) - min(asked) <= 1
    assert fleet.asked * fleet.rate >= load


def test_a_load_that_was_too_much_is_tried_again_in_the_end(simulate):
    fleet = simulate(policy_kwargs={"memory_s": 600})
    fleet.run(200, 70)
    for replica in fleet.replicas:
        replica.rate *= 10  # requests got lighter
    fleet.rate *= 10
    fleet.run(1200, 70)
    assert fleet.asked == 1


def test_without_load_all_but_the_least_go_at_once(simulate):
    fleet = simulate(min_replicas=2, downscale_delay_s=20.0)
    fleet.run(120, 90)
    assert fleet.asked > 3
    asked = fleet.run(60, 0)
    assert asked[-1] == 2
    assert fleet.counts["down"] == 1


def test_the_wait_before_fewer_is_rays(simulate):
    fleet = simulate(initial_replicas=4, downscale_delay_s=100.0)
    asked = fleet.run(200, 0)
    changes = [tick / 2 for tick, (one, other) in enumerate(itertools.pairwise(asked)) if other < one]
    assert len(changes) == 1
    assert changes[0] >= 100


def test_nothing_sleeps_and_wakes_at_a_request(simulate):
    fleet = simulate(min_replicas=0, initial_replicas=1, downscale_delay_s=10.0)
    assert fleet.run(60, 0)[-1] == 0
    assert fleet.run(1, 0.0)[-1] == 0
    assert fleet.run(1, 4)[0] == 1
    fleet.run(30, 4)
    assert (fleet.asked, len(fleet.replicas), fleet.homeless) == (1, 1, 0)
