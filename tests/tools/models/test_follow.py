"""A process that follows a bucket: what it brings, what it waits for, and what it survives."""

import os
import signal

MIB = 1 << 20
SOON = ("--follow", "--every", "0.2")


def plan_of(served):
    path = served / "current" / "encoder" / "1" / "model.plan"
    return path.read_bytes() if path.exists() else None


def push_plan(models, source, url, content, **environment):
    (source / "encoder" / "1" / "model.plan").write_bytes(content)
    models.succeed("push", source, url, **environment)


def test_each_later_push_is_brought_and_a_signal_ends_it(models, source, url, served, until, proxy):
    push_plan(models, source, url, b"one")
    follower = models.start("pull", url, served, *SOON, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: plan_of(served) == b"one", "the first snapshot")
    until(lambda: len(proxy.lines("If-None-Match:")) > 2, "looks that find nothing new")
    assert len([line for line in proxy.lines("GET ") if b"/manifests/" in line]) == 1
    push_plan(models, source, url, b"two")
    until(lambda: plan_of(served) == b"two", "the second snapshot")
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(10) == 128 + signal.SIGTERM
    assert "Traceback" not in follower.said()


def test_a_first_push_is_waited_for(models, source, url, served, until):
    once = models.start("pull", url, served.with_name("once"), "--wait", "--every", "0.2")
    follower = models.start("pull", url, served, *SOON, "--wait")
    until(lambda: "waiting for a first push" in once.said(), "the wait")
    until(lambda: "nothing has been pushed there" in follower.said(), "the wait of the follower")
    assert not os.path.lexists(served / "current"), "what a readiness probe tests for"
    push_plan(models, source, url, b"one")
    until(lambda: plan_of(served) == b"one", "the first snapshot")
    assert once.wait(60) == 0, once.said()


def test_without_waiting_a_follower_ends_where_nothing_was_pushed(models, url, served):
    done = models.run("pull", url, served, *SOON)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {url}: nothing has been pushed there: `scripts/models push FOLDER {url}`")


def test_a_follower_survives_a_network_that_fails(models, source, url, served, until, proxy):
    push_plan(models, source, url, b"one")
    follower = models.start("pull", url, served, *SOON, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: plan_of(served) == b"one", "the first snapshot")
    proxy.refuses = True
    proxy.cut()
    until(lambda: "trying again in" in follower.said(), "the failure")
    assert follower.poll() is None
    assert plan_of(served) == b"one"
    push_plan(models, source, url, b"two")
    proxy.refuses = False
    until(lambda: plan_of(served) == b"two", "the snapshot after the failure")
    assert "Traceback" not in follower.said()


def test_a_follower_starts_without_a_network(models, source, url, served, until, proxy):
    push_plan(models, source, url, b"one")
    proxy.refuses = True
    follower = models.start("pull", url, served, *SOON, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: "trying again in" in follower.said(), "the failure")
    proxy.refuses = False
    until(lambda: plan_of(served) == b"one", "the first snapshot")


def test_a_follower_keeps_what_it_has_while_a_push_is_corrupt(models, source, url, served, until, objects):
    push_plan(models, source, url, b"one")
    follower = models.start("pull", url, served, *SOON)
    until(lambda: plan_of(served) == b"one", "the first snapshot")
    follower.send_signal(signal.SIGSTOP)  # until the object is spoiled
    old = objects.names("objects/")
    push_plan(models, source, url, b"two" * MIB)
    (fresh,) = objects.names("objects/") - old
    objects.write(fresh, b"spoiled")
    follower.send_signal(signal.SIGCONT)
    until(lambda: "is corrupt" in follower.said(), "the refusal")
    assert plan_of(served) == b"one"
    assert follower.poll() is None
    models.succeed("push", "--force", source, url)
    until(lambda: plan_of(served) == b"two" * MIB, "the mended snapshot")


def test_a_follower_that_is_killed_goes_on_after_its_restart(models, source, url, served, until):
    push_plan(models, source, url, b"one")
    follower = models.start("pull", url, served, *SOON)
    until(lambda: plan_of(served) == b"one", "the first snapshot")
    follower.kill()
    follower.wait()
    push_plan(models, source, url, b"two")
    models.start("pull", url, served, *SOON)
    until(lambda: plan_of(served) == b"two", "the second snapshot")


def test_a_second_follower_stands_by_and_takes_over(models, source, url, served, until):
    push_plan(models, source, url, b"one")
    first = models.start("pull", url, served, *SOON)
    until(lambda: plan_of(served) == b"one", "the first snapshot")
    second = models.start("pull", url, served, *SOON)
    until(lambda: "another pull works in" in second.said(), "the second's waiting")
    first.kill()
    push_plan(models, source, url, b"two")
    until(lambda: plan_of(served) == b"two", "the second's snapshot")
