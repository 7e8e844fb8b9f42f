"""The four clients of tritonclient, as if they were one."""

import asyncio
import inspect

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as httpclient
import tritonclient.http.aio as http_aio

MODULES = {"http": httpclient, "http.aio": http_aio, "grpc": grpcclient, "grpc.aio": grpc_aio}


class Client:
    """One of the four, as if it were the first: coroutines run to their end, messages become dictionaries."""

    def __init__(self, kind, service):
        self.kind = kind
        self.module = MODULES[kind]
        self.asynchronous = kind.endswith(".aio")
        self._loop = asyncio.new_event_loop() if self.asynchronous else None
        url = service.host if kind.startswith("http") else service.grpc_host
        self._client = self.run(lambda: self.module.InferenceServerClient(url))

    def run(self, call):
        if not self.asynchronous:
            return call()

        async def awaited():
            result = call()
            return await result if inspect.isawaitable(result) else result

        return self._loop.run_until_complete(awaited())

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*arguments, **options):
            if self.kind.startswith("grpc") and "as_json" in inspect.signature(method).parameters:
                options["as_json"] = True
            return self.run(lambda: method(*arguments, **options))

        return call

    def input(self, name, datatype, array):
        given = self.module.InferInput(name, array.shape, datatype)
        given.set_data_from_numpy(array)
        return given

    def ones(self, count=4):
        return self.input("IN0", "FP32", np.ones(count, np.float32))

    def output(self, name, **options):
        return self.module.InferRequestedOutput(name, **options)

    def close(self):
        self.run(self._client.close)
        if self._loop:
            self._loop.close()


def opened(kinds):
    """A fixture: a client of each kind, one after the other."""

    @pytest.fixture(params=kinds)
    def client(request, service):
        one = Client(request.param, service)
        yield one
        one.close()

    return client


client, http, grpc = opened(MODULES), opened(["http", "http.aio"]), opened(["grpc", "grpc.aio"])
