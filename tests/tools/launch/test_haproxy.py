"""Limits that Serve's configuration of HAProxy lacks; e2e looks at the file of a service that runs."""

import os
import subprocess
import sys
from pathlib import Path

from serve_app.tools.launch.haproxy import limit

WRITTEN = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
frontend prometheus
    bind :{first}
    mode http
frontend http_frontend
    bind *:{second}
backend app
    timeout client 60s
listen stats
  bind *:{third}
  stats enable
"""


def write(folder):
    path = folder / "haproxy.cfg"
    path.write_text(WRITTEN.format(folder=folder, first=41001, second=41002, third=41003))
    return path


def test_headers_have_a_time_and_pages_about_haproxy_are_for_this_machine(tmp_path, capsys):
    path = write(tmp_path)
    limit(path)
    text = path.read_text()
    assert "    timeout client 300s\n    timeout http-request 10s\n    timeout server 300s\n" in text
    assert text.count("timeout http-request") == 1
    assert "mode 600 level admin" in text
    assert "bind 127.0.0.1:41001" in text
    assert "bind *:41002" in text, "the service's own port stays as it was configured"
    assert "bind 127.0.0.1:41003" in text
    before = path.stat().st_mtime_ns
    limit(path)
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out == ""


def test_a_template_that_has_changed_is_told(tmp_path, capsys):
    path = tmp_path / "haproxy.cfg"
    path.write_text("defaults\n    timeout client 1h\n")
    limit(path)
    assert "timeout http-request 10s" in path.read_text()
    assert capsys.readouterr().out.count("Ray's template is another") == 3


def test_the_command_edits_the_file_and_becomes_haproxy(tmp_path):
    path = write(tmp_path)
    command = Path(sys.executable).with_name("serve-app-haproxy")
    environment = os.environ | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(command)}
    checked = subprocess.run([command, "-c", "-f", path], capture_output=True, text=True, timeout=30, env=environment)
    assert checked.returncode == 0, checked.stderr
    assert "timeout http-request 10s" in path.read_text()
    assert os.access(command, os.X_OK)
