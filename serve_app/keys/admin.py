"""The key for loading and unloading models."""

import hmac
from collections.abc import Mapping
from pathlib import Path

from serve_app.errors import ConfigurationError, ForbiddenError, UnauthorizedError
from serve_app.keys.headers import given_key

HEADER = "authorization"
SCHEME = "bearer "


class AdminKey:
    """The content of a file, which is read again when it changes, so that a mounted Secret can be rotated."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_at: int | None = None
        self._key = b""
        if path:
            self._refresh()

    def require(self, headers: Mapping[str, str]) -> None:
        """Refuse a caller without the key; without a key file everyone is allowed."""
        if self._path is None:
            return
        if not headers.get(HEADER, "").lower().startswith(SCHEME):
            raise UnauthorizedError("this needs the admin key: send it as 'Authorization: Bearer <key>'")
        if not self.fits(given_key(headers)):
            raise ForbiddenError("the given key is not the admin key")

    def fits(self, given: str) -> bool:
        """Beside a keys file, where it is one key among others; without an admin key file nothing fits."""
        if self._path is None:
            return False
        self._refresh()
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._key)

    def _refresh(self) -> None:
        """If the file is gone, or empty while it is being written, the last key stays in force."""
        assert self._path is not None
        try:
            changed = self._path.stat().st_mtime_ns
            key = self._path.read_bytes().strip() if changed != self._read_at else self._key
        except OSError as problem:
            if not self._key:
                raise ConfigurationError(f"router.admin_key_file: {self._path}: {problem.strerror}") from None
            return
        if key:
            self._key, self._read_at = key, changed
        elif not self._key:
            raise ConfigurationError(f"router.admin_key_file: {self._path} is empty")
