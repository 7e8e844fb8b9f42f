"""A server for the tests of the embedded Triton, its models, and programs that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import serve_app.triton.embedded as triton

pytest.register_assert_rewrite("tests.triton.embedded.programs")

MODELS = Path(__file__).parent / "models"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def server() -> Iterator[triton.Server]:
    running = triton.Server(
        model_repository=str(MODELS), model_control_mode=triton.ModelControlMode.EXPLICIT, exit_timeout=10
    ).start(wait_until_ready=True)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def model(server: triton.Server) -> Callable[[str], triton.Model]:
    """Models by name, loaded when first asked for."""
    loaded: dict[str, triton.Model] = {}

    def get(name: str) -> triton.Model:
        if name not in loaded:
            loaded[name] = server.load(name)
        return loaded[name]

    return get


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Start a Python program of its own, which finds the package and the models."""

    def start(code: str) -> subprocess.Popen[str]:
        script = tmp_path / f"program{len(list(tmp_path.glob('program*.py'))) or ''}.py"
        script.write_text(f"MODELS = {str(MODELS)!r}\n{PRELUDE}\n{code}")
        # What is allocated or freed is overwritten, so that a use of it crashes.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_PERTURB_": "165"}
        return subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    return start


PRELUDE = """
import os, sys, time
import numpy as np
import serve_app.triton.embedded as triton

def start(**options):
    options = {"model_repository": MODELS, "model_control_mode": triton.ModelControlMode.EXPLICIT, **options}
    return triton.Server(**options).start(wait_until_ready=True)

def say(*words):
    print(*words, flush=True)
"""
