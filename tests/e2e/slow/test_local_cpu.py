"""The Serve configuration that kuberay/manifests/local-cpu carries, run here by `serve run`: the same text."""

import subprocess
import sys

import httpx
import yaml

from serve_app.settings import PROJECT_ROOT
from tests.e2e.service import SHAPES, manifest_environment


def test_what_the_local_manifest_serves_detects_here(tmp_path, start_service):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "deploy", "render", "local-cpu", "--set", "keys=null"]
    rendered = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    (service,) = (one for one in yaml.safe_load_all(rendered) if one["kind"] == "RayService")
    path = tmp_path / "serve.yaml"
    path.write_text(service["spec"]["serveConfigV2"])
    with start_service(path, tmp_path / "serve.log", **manifest_environment()).up():
        answer = httpx.post("http://127.0.0.1:8000/predict/nano", files={"image": SHAPES.read_bytes()}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["num_detections"] == 6
