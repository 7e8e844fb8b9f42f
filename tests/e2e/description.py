"""Requests that schemathesis makes of /openapi.json, and the answers that must be as described."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

CHECKS = "no_fault_of_the_server,status_code_conformance,content_type_conformance,response_schema_conformance"


def check_description(service, folder, phases):
    """Without schemathesis' chains of calls, which would unload models."""
    run = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{service.url}/openapi.json", f"--checks={CHECKS}",
         f"--phases={phases}", "--max-examples=15", "--seed=1", "--generation-database=none",
         "--request-timeout=60", "--no-color",
         "--exclude-path-regex=^/v1/(chat/completions|completions|embeddings)$",
         # it only says that it isn't there, with 501
         "--exclude-operation-id=namedRepositoryControl"],
        cwd=folder, capture_output=True, text=True, timeout=390,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_checks", "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    for model in service.laboratory_models:  # which it has found out, and unloaded
        assert httpx.post(f"{service.url}/v2/repository/models/{model}/load", timeout=60).status_code == 200
    assert run.returncode == 0, run.stdout[-6000:]
    assert "Tested: 35" in run.stdout, run.stdout[-2000:]
