"""A service that answers as a test says, over HTTP, for a page that is a client like any other."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FakeService:
    """`answers` are by method and path: (status, document), or (status, bytes, content type)."""

    def __init__(self, url):
        self.url = url
        self.answers, self.asked = {}, []


@pytest.fixture
def fake():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            service.asked.append((self.command, path, query, body))
            status, content, *kind = service.answers.get((self.command, path), (404, {"error": f"no {path} here"}))
            content = content if kind else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind[0] if kind else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = answer  # noqa: N815 - http.server's names
        do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service = FakeService(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield service
    server.shutdown()
    server.server_close()
