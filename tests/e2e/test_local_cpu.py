"""The Serve configuration that kuberay/rayservice.local-cpu.yaml carries, run here by `serve run`: the same text."""

import subprocess
import sys

import httpx
import pytest
import yaml

from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e
SHAPES = PROJECT_ROOT / "docs" / "shapes.jpg"
FOLDERS = ("HOME", "HF_HOME", "XDG_CACHE_HOME")  # of a pod, where they are volumes


@pytest.fixture
def rendered():
    """What `scripts/deploy render local-cpu` prints, as objects."""
    command = [sys.executable, PROJECT_ROOT / "scripts" / "deploy", "render", "local-cpu"]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return list(yaml.safe_load_all(answer.stdout))


def test_what_the_local_manifest_serves_detects_here(rendered, tmp_path, start_service):
    (service,) = (one for one in rendered if one["kind"] == "RayService")
    path = tmp_path / "serve.yaml"
    path.write_text(service["spec"]["serveConfigV2"])
    (container,) = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"] if one["name"] not in FOLDERS}
    with start_service(path, tmp_path / "serve.log", **environment).up():
        answer = httpx.post("http://127.0.0.1:8000/predict/nano", files={"image": SHAPES.read_bytes()}, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["num_detections"] == 6
