"""Calls to all replicas of a deployment: each answers for itself, and one may be enough."""

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from serve_app.errors import DeadlineExceededError, NotFoundError, UnavailableError


def raised_in_a_replica(problem):
    return RayTaskError("infer", "Traceback with internals", problem).as_instanceof_cause()


async def test_everywhere_gives_an_answer_of_each_replica_and_errors_in_their_places(deploy):
    def broken():
        raise raised_in_a_replica(NotFoundError("no model"))

    vision, handle = deploy("vision", {"index": lambda: "one"}, {"index": broken}, {"index": lambda: ActorDiedError()})
    one, error, dead = await vision.everywhere("index", timeout_s=3)
    assert (one, type(error), error.message, type(dead)) == ("one", NotFoundError, "no model", UnavailableError)
    assert handle.broadcasts == [("index", ())]
    assert handle.timeout_s == 3
    assert await vision.answers_everywhere("index", timeout_s=3) == ["one"]


async def test_where_no_replica_could_answer_the_first_problem_is_the_answer(deploy):
    def broken():
        raise raised_in_a_replica(NotFoundError("no model"))

    vision, _ = deploy("vision", {"index": broken}, {"index": lambda: ActorDiedError()})
    with pytest.raises(NotFoundError, match="no model"):
        await vision.answers_everywhere("index", timeout_s=3)


async def test_everywhere_needs_a_replica(deploy):
    vision, _ = deploy("vision")
    with pytest.raises(UnavailableError, match="vision has no running replica"):
        await vision.everywhere("index")


@pytest.mark.parametrize(
    ("problem", "expected", "message"),
    [
        (TimeoutError(), DeadlineExceededError, "not every replica of vision answered within 2.5 s"),
        (ActorDiedError(), UnavailableError, "the deployment is busy or not ready; try again later"),
        (KeyError("secret"), KeyError, "secret"),
    ],
)
async def test_a_broadcast_that_fails_as_a_whole(deploy, problem, expected, message):
    vision, handle = deploy("vision", {})
    handle.problem = problem
    for ask in (vision.everywhere, vision.answers_everywhere):
        with pytest.raises(expected, match=message):
            await ask("index", timeout_s=2.5)
