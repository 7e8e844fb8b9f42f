"""NVIDIA's tritonserver with its own HTTP and gRPC front ends, as a process beside the service."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.tools.bench.peers.processes import answers, current_environment, free_port, running
from serve_app.triton import standalone


@dataclass(frozen=True, slots=True)
class Addresses:
    url: str
    grpc: str


@contextmanager
def tritonserver(repository: Path, models: Iterable[str], name: str = "tritonserver") -> Iterator[Addresses]:
    http_port, grpc_port = free_port(), free_port()
    url = f"http://127.0.0.1:{http_port}"
    command = standalone.command(repository, models, http_port, grpc_port)
    environment = standalone.environment(current_environment())
    with running(name, command, lambda: answers(f"{url}/v2/health/ready"), environment):
        yield Addresses(url, f"127.0.0.1:{grpc_port}")
