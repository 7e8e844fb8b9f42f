"""One prefix of a bucket, and how its objects are read, written, listed and removed."""

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from serve_app.errors import ConfigurationError, InvalidRequestError
from serve_app.tools.models.failures import USER_IN_URL, is_not_modified, is_past_the_end, told

TRANSFERS = 8  # at once
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 10, 60, 4
REMOVED_AT_ONCE = 1000  # S3's own limit
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
        parts = [part for part in prefix.split("/") if part]
        if {".", ".."} & set(parts) or not prefix.isprintable():
            raise InvalidRequestError(f"{text!r}: a prefix has no '.', '..' or control characters between slashes")
        return cls(bucket, "/".join(parts))

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Listed:
    """An object without its content; the name is what follows the prefix."""

    name: str
    size: int
    at: datetime


class Store:
    """Names are below the prefix; every failure is one of ours."""

    def __init__(self, url: BucketUrl) -> None:
        self.url = url
        self.client = _client(url)
        self.endpoint = str(self.client.meta.endpoint_url)

    def told(self, name: str) -> Any:
        return told(f"{self.url}/{name}".rstrip("/"), self.endpoint)

    def target(self, name: str) -> dict[str, str]:
        return {"Bucket": self.url.bucket, "Key": self.url.key(name)}

    def read(self, name: str) -> bytes:
        with self.told(name):
            return bytes(self.client.get_object(**self.target(name))["Body"].read())

    def read_if_changed(self, name: str, etag: str | None) -> tuple[bytes, str] | None:
        """Content and ETag, or None where the ETag is still this one."""
        condition = {"IfNoneMatch": etag} if etag else {}
        with self.told(name):
            try:
                answer = self.client.get_object(**self.target(name), **condition)
            except ClientError as problem:
                if is_not_modified(problem):
                    return None
                raise
            return bytes(answer["Body"].read()), str(answer["ETag"])

    def stream(self, name: str, offset: int) -> tuple[int, Any]:
        """The content from there on: how much that is, and botocore's body; (0, None) where it ends before."""
        part = {"Range": f"bytes={offset}-"} if offset else {}
        with self.told(name):
            try:
                answer = self.client.get_object(**self.target(name), **part)
            except ClientError as problem:
                if is_past_the_end(problem):
                    return 0, None
                raise
            return int(answer["ContentLength"]), answer["Body"]

    def write(self, name: str, content: bytes, sha256: str | None = None) -> None:
        """With a sum, S3 refuses what arrives otherwise."""
        checked = {"ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()} if sha256 else {}
        with self.told(name):
            self.client.put_object(**self.target(name), Body=content, **checked)

    def listing(self, folder: str) -> Iterator[Listed]:
        pages = self.client.get_paginator("list_objects_v2")
        start = self.url.key("")
        with self.told(folder):
            for page in pages.paginate(Bucket=self.url.bucket, Prefix=self.url.key(folder)):
                for one in page.get("Contents", ()):
                    yield Listed(one["Key"].removeprefix(start), one["Size"], one["LastModified"])

    def remove(self, names: Iterable[str]) -> None:
        keys = [{"Key": self.url.key(name)} for name in names]
        for first in range(0, len(keys), REMOVED_AT_ONCE):
            some = {"Objects": keys[first : first + REMOVED_AT_ONCE], "Quiet": True}
            with self.told(""):
                answer = self.client.delete_objects(Bucket=self.url.bucket, Delete=some)
                for error in answer.get("Errors", ()):
                    raise ClientError({"Error": error}, "DeleteObjects")


def _client(url: BucketUrl) -> Any:
    """By boto3's own chain of credentials and endpoints; a store that isn't Amazon's has no host for each bucket."""
    with told(str(url)):
        try:
            client = boto3.client("s3", config=_config("auto"))
            host = urlsplit(client.meta.endpoint_url).hostname or ""
            return client if host.endswith(AMAZON) else boto3.client("s3", config=_config("path"))
        except ValueError as problem:
            reason = USER_IN_URL.sub("//", str(problem))
            raise ConfigurationError(f"{url}: {reason}: mend AWS_ENDPOINT_URL or AWS_REGION") from None


def _config(addressing: str) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=TRANSFERS + 2,
        s3={"addressing_style": addressing},
        response_checksum_validation="when_required",  # sums are checked here, over the whole file
    )
