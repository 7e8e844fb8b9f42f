"""Limits that Serve's configuration of HAProxy lacks; e2e looks at the file of a service that runs."""

import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serve_app.tools.bench.baselines.processes import free_port
from serve_app.tools.launch.haproxy import edit

WRITTEN = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option abortonclose
    option splice-request
    option splice-response
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend prometheus
    bind :{first}
    mode http
frontend http_frontend
    bind *:{second}
    use_backend app if {{ path /app }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path '%[path]' not found. Ping /-/routes."
frontend grpc_frontend
    # gRPC requires HTTP/2.
    bind *:{fourth} proto h2
    default_backend default_grpc_backend
backend app
    timeout client 60s
    server one 127.0.0.1:{server}
backend default_grpc_backend
    mode http
    acl has_application_header req.hdr(application) -m found
    {grpc} hdr grpc-status 5 hdr grpc-message "Application 'x' not found" if has_application_header
    {grpc} hdr grpc-status 5 hdr grpc-message "Application metadata not set"
listen stats
  bind *:{third}
  stats enable
"""
GRPC = "http-request return status 200 content-type application/grpc"


def write(folder, first=41001, second=41002, third=41003, fourth=41004, server=1):
    """As Serve does."""
    (folder / "500.http").write_bytes(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    path = folder / "haproxy.cfg"
    path.write_text(
        WRITTEN.format(folder=folder, first=first, second=second, third=third, fourth=fourth, grpc=GRPC, server=server)
    )
    return path


def test_headers_have_a_time_and_pages_about_haproxy_are_for_this_machine(tmp_path, capsys):
    path = write(tmp_path)
    edit(path)
    text = path.read_text()
    assert "    timeout client 300s\n    timeout http-request 10s\n    timeout server 300s\n" in text
    assert text.count("timeout http-request") == 1
    assert "mode 600 level admin" in text
    assert "bind 127.0.0.1:41001" in text
    assert "bind *:41002" in text, "the service's own port stays as it was configured"
    assert "bind 127.0.0.1:41003" in text
    before = path.stat().st_mtime_ns
    edit(path)
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out == ""


def test_a_template_that_has_changed_is_told(tmp_path, capsys):
    path = tmp_path / "haproxy.cfg"
    path.write_text("defaults\n    timeout client 1h\n")
    edit(path)
    assert "timeout http-request 10s" in path.read_text()
    assert capsys.readouterr().out.count("Ray's template is another") == 7


def test_the_command_edits_the_file_and_becomes_haproxy(tmp_path):
    path = write(tmp_path)
    command = Path(sys.executable).with_name("serve-app-haproxy")
    environment = os.environ | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(command)}
    checked = subprocess.run([command, "-c", "-f", path], capture_output=True, text=True, timeout=30, env=environment)
    assert checked.returncode == 0, checked.stderr
    assert "timeout http-request 10s" in path.read_text()
    assert os.access(command, os.X_OK)


def test_a_service_without_routes_or_routers_asks_clients_to_try_again(tmp_path):
    """As HAProxy says it, over HTTP and to a stock gRPC client; Serve's own file has 404, 500 and NOT_FOUND there."""
    http, grpc_port = free_port(), free_port()
    path = write(tmp_path, free_port(), http, free_port(), grpc_port)
    with subprocess.Popen([Path(sys.executable).with_name("serve-app-haproxy"), "-f", path]) as proxy:
        try:
            wait_for_port(grpc_port)
            for target in ("/", "/v1/chat/completions", "/app"):
                answer = httpx.post(f"http://127.0.0.1:{http}{target}", json={})
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), target
                assert "try again" in answer.json()["error"]
            client = triton.InferenceServerClient(f"127.0.0.1:{grpc_port}")
            for headers in ({}, {"application": "serve_app"}):
                with pytest.raises(InferenceServerException) as refused:
                    client.is_server_live(headers)
                assert refused.value.status() == "StatusCode.UNAVAILABLE"
        finally:
            proxy.terminate()


def test_a_client_that_leaves_costs_nothing_while_its_request_is_at_work(tmp_path):
    """HAProxy as Serve configures it would use two processors until the request is answered."""
    http, grpc_port = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and answers none
        path = write(tmp_path, free_port(), http, free_port(), grpc_port, server.getsockname()[1])
        with subprocess.Popen([Path(sys.executable).with_name("serve-app-haproxy"), "-f", path]) as proxy:
            try:
                wait_for_port(grpc_port)
                for _ in range(3):
                    with pytest.raises(httpx.ReadTimeout):
                        httpx.post(f"http://127.0.0.1:{http}/app", content=b"x" * 60, timeout=0.3)
                before = sum(psutil.Process(proxy.pid).cpu_times()[:2])
                time.sleep(1)
                assert sum(psutil.Process(proxy.pid).cpu_times()[:2]) - before < 0.2
            finally:
                proxy.terminate()


def certificate(folder):
    """A chain and its key in two files, as a Secret of type tls is mounted."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder / "tls.crt"


def test_tls_ends_in_haproxy_where_there_is_a_certificate(tmp_path):
    crt, http, grpc = certificate(tmp_path), free_port(), free_port()
    path = write(tmp_path, free_port(), http, free_port(), grpc)
    text = path.read_text()
    answer = "    http-request return status 200 content-type text/plain string plain\n"
    text = text.replace(f"bind *:{http}\n", f"bind 127.0.0.1:{http}\n{answer}")
    path.write_text(
        text.replace(f"bind *:{grpc} proto h2\n", f"bind 127.0.0.1:{grpc} proto h2\n    mode http\n{answer}")
    )
    command = Path(sys.executable).with_name("serve-app-haproxy")
    environment = os.environ | {"SERVE_APP_TLS_CERTIFICATE": str(crt)}
    with subprocess.Popen([command, "-f", path], env=environment) as proxy:
        try:
            context = ssl.create_default_context(cafile=crt)
            wait_for_port(http)
            assert httpx.get(f"https://localhost:{http}", verify=context).text == "plain"
            for port, protocol in ((http, "h2"), (grpc, "h2"), (http, "http/1.1")):
                context.set_alpn_protocols([protocol])
                plain = socket.create_connection(("localhost", port))
                with context.wrap_socket(plain, server_hostname="localhost") as secured:
                    assert secured.selected_alpn_protocol() == protocol
                    assert secured.version() in ("TLSv1.2", "TLSv1.3")
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"http://localhost:{http}")
        finally:
            proxy.terminate()


def test_a_certificate_that_is_missing_is_named(tmp_path):
    path = write(tmp_path)
    command = Path(sys.executable).with_name("serve-app-haproxy")
    environment = os.environ | {"SERVE_APP_TLS_CERTIFICATE": str(tmp_path / "nowhere.pem")}
    checked = subprocess.run([command, "-c", "-f", path], capture_output=True, text=True, timeout=30, env=environment)
    assert checked.returncode == 1
    assert "nowhere.pem" in checked.stderr


def wait_for_port(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}")
