"""The keys file: names, hashes, scopes and limits; a thread reads it again when it has changed."""

import hashlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from serve_app.errors import ConfigurationError
from serve_app.settings import Section, mistakes
from serve_app.settings.section import Name

logger = logging.getLogger("ray.serve")
Scope = Literal["infer", "llm", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
REREAD_S = 1.0
MAX_DEPTH = 16
# The loader in C, where PyYAML has it: a thousand keys take the other a third of a second.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Key(Section):
    """What the holder of one key may do."""

    name: Name
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the key, which is random and so needs no slow hash")
    scopes: tuple[Scope, ...] = Field(("infer", "llm"), min_length=1, description=f"of {', '.join(SCOPES)}")
    models: tuple[str, ...] = Field(("*",), min_length=1, description="names of models, or patterns: yolo_*")
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1, description="of language models, prompts included")
    concurrent_requests: int | None = Field(None, ge=1)

    @property
    def is_limited(self) -> bool:
        return (self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests) != (None, None, None)


class Keys(Section):
    """The whole file."""

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "Keys":
        for what in ("name", "sha256"):
            seen: set[str] = set()
            for key in self.keys:
                value = getattr(key, what)
                if value in seen:
                    raise ValueError(f"two keys have the {what} {value[:12]!r}")
                seen.add(value)
        return self


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> Keys:
    try:
        content = _load(path.read_bytes())
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from None
    except Exception as problem:  # PyYAML raises nearly anything for a date, a number or a tag that is none
        mark = getattr(problem, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigurationError(f"{place}: not valid YAML") from None  # without the text, which holds hashes
    try:
        return Keys.model_validate(content)
    except ValidationError as problem:
        raise ConfigurationError(f"{path}: {mistakes(problem.errors(include_input=False), 'the file')}") from None


def _load(text: bytes) -> Any:
    """Refuses deep nesting first, at which the loader in C would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
    return yaml.load(text, Loader=Loader)


class KeyFile:
    """The keys in force. A file that is gone or broken leaves the last good one in force."""

    def __init__(self, path: Path, reread_s: float = REREAD_S) -> None:
        self._path, self._reread_s = path, reread_s
        self._by_digest: Mapping[str, Key] = {}
        self._seen: tuple[int, ...] | None = None
        self._ended = threading.Event()
        self._take(read_keys(path))
        self._seen = self._stamp()
        threading.Thread(target=self._follow, name="keys file", daemon=True).start()

    def find(self, key: str) -> Key | None:
        return self._by_digest.get(digest_of(key))

    def is_in_force(self, key: Key) -> bool:
        """For work that lasts: whether the key was neither revoked nor replaced by another."""
        return key.sha256 in self._by_digest

    def close(self) -> None:
        self._ended.set()

    def _take(self, keys: Keys) -> None:
        self._by_digest = {key.sha256: key for key in keys.keys}

    def _stamp(self) -> tuple[int, ...]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _follow(self) -> None:
        while not self._ended.wait(self._reread_s):
            self.refresh()

    def refresh(self) -> None:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp  # a broken file is read, and logged, once
            self._take(read_keys(self._path))
            logger.info(f"{self._path}: {len(self._by_digest)} keys in force")
        except OSError as problem:
            if self._seen is not None:
                logger.error(f"{self._path}: {problem.strerror}; the keys read before stay in force")
            self._seen = None
        except ConfigurationError as problem:
            logger.error(f"{problem}; the keys read before stay in force")
