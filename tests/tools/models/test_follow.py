"""A process that follows a bucket: what it pulls, what it waits for, and what it survives."""

import os
import signal

import pytest

MIB = 1 << 20


@pytest.fixture
def follow(models, url, served):
    return lambda *options: models.start("pull", url, served, "--follow", "--every", "0.2", *options)


@pytest.fixture
def push_plan(models, source, plan, url):
    def push(content):
        plan.write_bytes(content)
        models.succeed("push", source, url)

    return push


@pytest.fixture
def wait_for(served, until):
    """Wait until this plan is served."""
    plan = served / "current" / "encoder" / "1" / "model.plan"
    return lambda content: until(lambda: plan.exists() and plan.read_bytes() == content, f"the plan {content[:9]}")


def test_a_follower_pulls_every_push_checks_cheaply_and_ends_with_a_signal(push_plan, follow, wait_for, until, s3):
    push_plan(b"one")
    follower = follow()
    wait_for(b"one")
    s3.requests.clear()
    until(lambda: len(s3.requests) > 2, "checks that find nothing new")
    assert {request.rpartition("/")[2] for request in s3.requests} == {"current"}
    push_plan(b"two")
    wait_for(b"two")
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(10) == 128 + signal.SIGTERM
    assert "Traceback" not in follower.output()


def test_with_wait_a_pull_waits_for_the_first_push_and_without_it_fails(
    models, push_plan, follow, wait_for, url, served, until
):
    message = f"{url}: nothing has been pushed: run `scripts/models push FOLDER {url}`, or correct the URL"
    assert models.fail("pull", url, served, "--follow") == f"error: {message}\n"
    once = models.start("pull", url, served.with_name("once"), "--wait", "--every", "0.2")
    follower = follow("--wait")
    until(lambda: once.output() == follower.output() == f"{message}; waiting for the first push\n", "the waits")
    assert not os.path.lexists(served / "current"), "a startup probe tests for it"
    push_plan(b"one")
    wait_for(b"one")
    assert once.wait(60) == 0, once.output()


def test_a_follower_survives_failures_of_the_network_also_at_its_start(push_plan, follow, wait_for, until, s3):
    push_plan(b"one")
    s3.refuses = lambda request: request.endswith("/current")
    follower = follow()
    until(lambda: "; trying again in " in follower.output(), "the first failure")
    s3.refuses = lambda request: False
    wait_for(b"one")
    s3.refuses = lambda request: request.endswith("/current")
    until(lambda: follower.output().rpartition("is now at")[2].count("; trying again in "), "the second failure")
    assert follower.poll() is None
    s3.refuses = lambda request: False
    push_plan(b"two")
    wait_for(b"two")
    assert "Traceback" not in follower.output()


def test_a_follower_keeps_serving_while_a_push_is_corrupt(
    push_plan, follow, wait_for, until, objects, models, url, source
):
    push_plan(b"one")
    follower = follow()
    wait_for(b"one")
    follower.send_signal(signal.SIGSTOP)  # until the object is corrupt
    old = objects.names("objects/")
    push_plan(b"two" * MIB)
    (fresh,) = objects.names("objects/") - old
    objects.write(fresh, b"spoilt")
    follower.send_signal(signal.SIGCONT)
    until(lambda: " is corrupt: " in follower.output(), "the refusal")
    wait_for(b"one")
    assert follower.poll() is None
    models.succeed("push", "--force", source, url)
    wait_for(b"two" * MIB)


def test_when_a_follower_is_killed_a_second_one_or_a_restarted_one_goes_on(push_plan, follow, wait_for, until):
    push_plan(b"one")
    first = follow()
    wait_for(b"one")
    second = follow()
    until(lambda: "is already at" in second.output(), "the second's start")
    for follower, content in ((first, b"two"), (second, b"three")):
        follower.kill()
        follower.wait()
        push_plan(content)
        if follower is second:
            follow()
        wait_for(content)
