"""The keys file, and the headers in which a key arrives."""

from dataclasses import dataclass

from serve_app.errors import ConfigurationError
from serve_app.keys.file import digest_of, read_keys
from serve_app.keys.headers import given_key

HEADERS = ("authorization", "x-api-key")


@dataclass(frozen=True)
class FileInMemory:
    """What `read_keys` asks of a path."""

    content: bytes

    def read_bytes(self) -> bytes:
        return self.content


def take(data: bytes) -> None:
    """After an `h` a header a line, else a keys file."""
    if data[:1] == b"h":
        lines = data[1:].split(b"\n")
        for encoding in ("latin-1", "utf-8"):  # HTTP's headers, and gRPC's metadata
            values = [line.decode(encoding, "replace") for line in lines]
            digest_of(given_key(dict(zip(HEADERS, values, strict=False))))
        return
    try:
        read_keys(FileInMemory(data))
    except ConfigurationError as problem:
        problem.message.encode()  # as it is logged
