"""The wheel's own tritonserver program with its front ends, against which the in-process server is held."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from serve_app.triton.embedded import library


def command(repository: Path, models: Iterable[str], http_port: int, grpc_port: int) -> list[str]:
    """Loads these models, and more on request."""
    return [
        str(library.wheel_directory() / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in models),
        f"--backend-directory={library.backend_directory()}",
        "--http-address=127.0.0.1",  # it loads whatever it is sent
        "--grpc-address=127.0.0.1",
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        "--allow-metrics=false",
        f"--backend-config=python,shm-region-prefix-name=standalone-{http_port}",
        "--exit-timeout-secs=5",
    ]


def environment(current: Mapping[str, str]) -> dict[str, str]:
    """With what it and its stubs need to find libraries and this interpreter."""
    libraries = library.wheel_directory().parent / "nvidia_pytriton.libs"
    return dict(current) | {
        "PATH": f"{os.path.dirname(sys.executable)}:{current.get('PATH', '')}",
        "LD_LIBRARY_PATH": f"{library.python_library_directory()}:{libraries}",
    }
