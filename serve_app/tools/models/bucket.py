"""A prefix of an S3 bucket: reads, writes, lists and deletes its objects."""

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from serve_app.errors import ConfigurationError, InvalidRequestError
from serve_app.tools.models.s3_errors import NOT_MODIFIED, code_of, translate_errors, without_password

CONNECTIONS = 8
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 10, 60, 4
DELETED_AT_ONCE = 1000  # S3's own limit
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
AMAZON = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """s3://bucket/prefix; the prefix may be empty."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> "BucketUrl":
        scheme, separator, rest = text.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme != "s3" or not separator or not BUCKET.fullmatch(bucket):
            raise InvalidRequestError(f"{text!r} is not s3://BUCKET/PREFIX, as in s3://my-models/yolo")
        names = [name for name in prefix.split("/") if name]
        if {".", ".."} & set(names) or not prefix.isprintable():
            raise InvalidRequestError(f"{text!r}: the prefix must not contain '.', '..' or control characters")
        return cls(bucket, "/".join(names))

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class StoredObject(NamedTuple):
    """An object without its content; the name starts after the prefix."""

    name: str
    size: int
    modified: datetime


class Bucket:
    """Names start after the prefix. Every failure is raised as an error of serve_app.errors."""

    def __init__(self, url: BucketUrl) -> None:
        self.url = url
        self._client = _build_client(url)

    def _translate(self, name: str) -> AbstractContextManager[None]:
        return translate_errors(f"{self.url}/{name}".rstrip("/"), str(self._client.meta.endpoint_url))

    def _target(self, name: str) -> dict[str, str]:
        return {"Bucket": self.url.bucket, "Key": self.url.key(name)}

    def read(self, name: str, size: int | None = None) -> bytes:
        """Return the content, or nothing if its size isn't the expected one."""
        with self._translate(name):
            answer = self._client.get_object(**self._target(name))
            with answer["Body"] as body:
                return b"" if size not in (None, answer["ContentLength"]) else bytes(body.read())

    def read_if_changed(self, name: str, etag: str | None) -> tuple[bytes, str] | None:
        """Return content and ETag, or None if the object still has this ETag."""
        condition = {"IfNoneMatch": etag} if etag else {}
        with self._translate(name):
            try:
                answer = self._client.get_object(**self._target(name), **condition)
            except ClientError as problem:
                if code_of(problem) in NOT_MODIFIED:
                    return None
                raise
            return bytes(answer["Body"].read()), str(answer["ETag"])

    def write(self, name: str, content: bytes, sha256: str | None = None) -> None:
        """With a checksum, S3 refuses content that arrives with another one."""
        checked = {"ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()} if sha256 else {}
        with self._translate(name):
            self._client.put_object(**self._target(name), Body=content, **checked)

    def list(self, folder: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2")
        start = self.url.key("")
        with self._translate(folder):
            for page in pages.paginate(Bucket=self.url.bucket, Prefix=self.url.key(folder)):
                for one in page.get("Contents", ()):
                    yield StoredObject(one["Key"].removeprefix(start), one["Size"], one["LastModified"])

    def delete(self, names: Iterable[str]) -> None:
        keys = [{"Key": self.url.key(name)} for name in names]
        for first in range(0, len(keys), DELETED_AT_ONCE):
            some = {"Objects": keys[first : first + DELETED_AT_ONCE], "Quiet": True}
            with self._translate(""):
                answer = self._client.delete_objects(Bucket=self.url.bucket, Delete=some)
                for error in answer.get("Errors", ()):
                    raise ClientError({"Error": error}, "DeleteObjects")


def _build_client(url: BucketUrl) -> Any:
    """Use boto3's chain of credentials. Only Amazon's S3 is known to have a host name for every bucket."""
    with translate_errors(str(url)):
        try:
            client = boto3.client("s3", config=_build_config("auto"))
            host = urlsplit(client.meta.endpoint_url).hostname or ""
            return client if host.endswith(AMAZON) else boto3.client("s3", config=_build_config("path"))
        except ValueError as problem:
            raise ConfigurationError(
                f"{url}: {without_password(str(problem))}: correct AWS_ENDPOINT_URL or AWS_REGION"
            ) from None


def _build_config(addressing: str) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS + 2,
        s3={"addressing_style": addressing},
        response_checksum_validation="when_required",  # a manifest has the checksums
    )
