"""A deployment without a cluster: a handle as Ray Serve gives it, over replicas or answers that a test scripts."""

import asyncio
import inspect

import pytest
from ray.serve.exceptions import RequestCancelledError

from serve_app.router.upstream import Upstream


class Answer:
    """What a call returns: awaited one outcome, iterated each of a list; errors are raised, awaitables awaited.

    An event is waited for, and isn't an answer; a class or function makes an outcome when it is its turn.
    """

    def __init__(self, outcome):
        self._outcomes = list(outcome) if isinstance(outcome, list) else [outcome]
        self.cancelled = self.left = False  # cancelled through the handle; ended while it waited

    def cancel(self):
        self.cancelled = True

    def __await__(self):
        return self._take().__await__()

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self._take()

    async def _take(self):
        if not self._outcomes:
            raise StopAsyncIteration
        outcome = self._outcomes.pop(0)
        if callable(outcome):
            outcome = outcome()
        try:
            if isinstance(outcome, asyncio.Event):
                await outcome.wait()
                return await self._take()
            if inspect.isawaitable(outcome):
                outcome = await outcome
        except asyncio.CancelledError:
            self.left = True
            if self.cancelled:  # as Serve's own answers do
                raise RequestCancelledError("7") from None
            raise
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def outcome_of(method, arguments):
    try:
        return method(*arguments)
    except Exception as problem:
        return problem


class Handle:
    """Calls alternate among replicas, which map methods to functions, or take the outcomes of a script in turn."""

    def __init__(self, *replicas, script=None):
        self.replicas, self._script = list(replicas), script and list(script)
        self.calls, self.answers = [], []  # a call is its method, arguments and options
        self.broadcasts, self.timeout_s = [], None
        self.problem = None  # what a broadcast as a whole raises or waits for

    def options(self, **options):
        return BoundHandle(self, options)

    def call(self, method, arguments, options):
        self.calls.append((method, arguments, options))
        if self._script is None:
            replica = self.replicas[(len(self.calls) - 1) % len(self.replicas)]
            self.answers.append(Answer(outcome_of(replica[method], arguments)))
        else:
            self.answers.append(Answer(self._script.pop(0)))
        return self.answers[-1]

    async def broadcast(self, method, arguments, timeout_s):
        self.timeout_s = timeout_s
        if self.problem:
            await Answer(self.problem)
        answers = [Answer([outcome_of(replica[method], arguments)]) for replica in self.replicas]
        return await asyncio.gather(*answers, return_exceptions=True)


class BoundHandle:
    """A handle with options."""

    def __init__(self, handle, options):
        self._handle, self._options = handle, options

    def options(self, **options):
        return BoundHandle(self._handle, self._options | options)

    def broadcast(self, method, *arguments):
        self._handle.broadcasts.append((method, arguments))

        class Responses:
            async def results_async(_self, timeout_s, return_exceptions):  # noqa: N805
                assert return_exceptions
                return await self._handle.broadcast(method, arguments, timeout_s)

        return Responses()

    def __getattr__(self, method):
        class Method:
            def remote(_self, *arguments):  # noqa: N805
                return self._handle.call(method, arguments, self._options)

        return Method()


@pytest.fixture(scope="session")
def handle():
    """Handles without an upstream around them."""
    return Handle


@pytest.fixture
def deploy():
    """An upstream, and the handle behind it; `crashed` are the actors that crashed of their own."""

    def make(name, *replicas, script=None, crashed=(), **options):
        async def has_crashed(actor_id):
            return actor_id in crashed

        handle = Handle(*replicas, script=script)
        return Upstream(name, handle, crashed=has_crashed, **options), handle

    return make
