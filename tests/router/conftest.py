"""A deployment without a cluster: a handle as Ray Serve gives it, over replicas that a test makes up."""

import inspect

import pytest

from serve_app.router.upstream import Upstream


async def never_crashed(_actor_id):
    return False


async def answer(found):
    """What a method gives or raises; errors may also stand for answers."""
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, BaseException):
        raise found
    return found


class Call:
    """A method of a handle that is bound to its options."""

    def __init__(self, handle, method, options):
        self._handle, self._method, self._options = handle, method, options

    def remote(self, *arguments):
        handle = self._handle
        handle.calls.append((self._method, arguments, self._options))
        replica = handle.replicas[(len(handle.calls) - 1) % len(handle.replicas)]
        return answer(replica[self._method](*arguments))


class Everywhere:
    """What a broadcast gives."""

    def __init__(self, handle, method, arguments):
        self._handle, self._method, self._arguments = handle, method, arguments

    async def results_async(self, timeout_s, return_exceptions):
        assert return_exceptions
        self._handle.timeout_s = timeout_s
        if self._handle.problem:
            raise self._handle.problem
        found = []
        for replica in self._handle.replicas:
            try:
                found.append(await answer(replica[self._method](*self._arguments)))
            except Exception as problem:
                found.append(problem)
        return found


class Handle:
    """Replicas are mappings from methods to functions; calls take turns among them."""

    def __init__(self, *replicas):
        self.replicas, self.calls, self.broadcasts = list(replicas), [], []
        self.problem = None  # what a broadcast raises as a whole
        self.timeout_s = None

    def options(self, **options):
        return Bound(self, options)

    def broadcast(self, method, *arguments):
        self.broadcasts.append((method, arguments))
        return Everywhere(self, method, arguments)


class Bound:
    def __init__(self, handle, options):
        self._handle, self._options = handle, options

    def options(self, **options):
        return Bound(self._handle, self._options | options)

    def broadcast(self, method, *arguments):
        return self._handle.broadcast(method, *arguments)

    def __getattr__(self, method):
        return Call(self._handle, self._options.get("method_name", method), self._options)


@pytest.fixture
def deploy():
    """An upstream with replicas, and the handle behind it."""

    def make(name, *replicas):
        handle = Handle(*replicas)
        return Upstream(name, handle, crashed=never_crashed), handle

    return make
