"""A fake language model behind a real gRPC server; a test's script writes the responses of its stream."""

import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

FINAL = "triton_final_response"
MODEL = "demo-llm"


def text_of(raw):
    (length,) = struct.unpack_from("<I", raw)
    assert len(raw) == length + 4, "a BYTES element is its length, then itself"
    return raw[4:].decode()


class FakeModel(GRPCInferenceServiceServicer):
    """`script(requests, context)` is one stream: an iterable of responses. `messages` are the requests that arrived."""

    def __init__(self):
        self.messages, self.streams = [], 0
        self.script = lambda requests, _: (self.answer(request, f"{self.prompt(request)} Yes.") for request in requests)

    @staticmethod
    def prompt(message):
        return text_of(message.raw_input_contents[0])

    @staticmethod
    def answer(message, *texts, final=True):
        """`final` None: the server does not mark the last response."""
        response = pb.ModelInferResponse(id=message.id, model_name=message.model_name)
        if texts:
            response.outputs.add(name="TEXT", datatype="BYTES", shape=[len(texts)])
            encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
            response.raw_output_contents.append(b"".join(struct.pack("<I", len(text)) + text for text in encoded))
        if final is not None:
            response.parameters[FINAL].bool_param = final
        return pb.ModelStreamInferResponse(infer_response=response)

    @staticmethod
    def failure(message, error):
        """The error of a request, with its id, as Triton and serve_app send it."""
        response = pb.ModelInferResponse(id=message.id)
        response.parameters[FINAL].bool_param = True
        return pb.ModelStreamInferResponse(error_message=error, infer_response=response)

    def grow(self, message, *words, final="empty"):
        """The text so far, word by word; its end is an `empty` response, marked `with` the last text, or None."""
        text = self.prompt(message)
        for position, word in enumerate(words):
            text += word
            last = position == len(words) - 1
            yield self.answer(message, text, final=None if final is None else last and final == "with")
        if final == "empty":
            yield self.answer(message)

    def ModelMetadata(self, request, context):  # noqa: N802
        if request.name != MODEL:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: '{request.name}'")
        return pb.ModelMetadataResponse(name=MODEL)

    def ModelStreamInfer(self, request_iterator, context):  # noqa: N802
        self.streams += 1
        yield from self.script(self._noted(request_iterator), context)

    def _noted(self, messages):
        for message in messages:
            self.messages.append(message)
            yield message


@pytest.fixture
def fake():
    """A fake model that is served at its `url`."""
    model = FakeModel()
    server = grpc.server(ThreadPoolExecutor(4))
    add_GRPCInferenceServiceServicer_to_server(model, server)
    model.port = server.add_insecure_port("127.0.0.1:0")
    model.url = f"127.0.0.1:{model.port}"
    server.start()
    yield model
    server.stop(None).wait(5)


class Wire:
    """A proxy to the fake model whose connections can be cut."""

    def __init__(self, port):
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends = []
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            return

    def cut(self):
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):  # the other side has closed it
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()


@pytest.fixture
def wire(fake):
    wire = Wire(fake.port)
    yield wire
    wire.cut()


@pytest.fixture
def unreachable():
    """An address where nothing listens; the bound socket keeps others from using it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent():
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
