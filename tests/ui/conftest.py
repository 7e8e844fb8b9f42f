"""A service over HTTP that gives the answers of a test, and the real page as its client."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FakeService:
    """`answers` are by method and path: (status, document), or (status, bytes, content type)."""

    def __init__(self):
        self.answers, self.requests = {}, []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service.requests.append((path, query, body))
                status, content, *kind = service.answers.get((self.command, path), (404, {"error": f"no {path} here"}))
                content = content if kind else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind[0] if kind else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer  # noqa: N815 - http.server's names

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture(scope="session")
def fake_service():
    service = FakeService()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def service(fake_service):
    fake_service.answers.clear()
    fake_service.requests.clear()
    return fake_service
