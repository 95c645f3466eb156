"""The bucket that holds the archive, on S3 and in memory."""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long an object cannot be deleted, where the bucket has Object Lock."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: int
    now: Callable[[], datetime]


_NO_LOCK = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented")


class Bucket:
    """The objects of one system under its prefix; with a retention, what is stored new is locked for that long."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str, retention: Retention | None = None) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._retention = retention

    def has_lock(self) -> bool:
        """Whether objects of the bucket can be locked."""
        try:
            found = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] in _NO_LOCK or error.response["ResponseMetadata"]["HTTPStatusCode"] in (
                404,
                501,
            ):
                return False
            raise
        return found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"

    def locking(self, retention: Retention) -> "Bucket":
        """The same objects; what is stored new is locked."""
        return Bucket(self._client, self._bucket, self._prefix, retention)

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Store an object under a key that must be free; False if it is not. The store checks its SHA-256."""
        lock: dict[str, Any] = {}
        if self._retention is not None:
            until = self._retention.now() + timedelta(days=self._retention.days)
            lock = {"ObjectLockMode": self._retention.mode, "ObjectLockRetainUntilDate": until}
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._prefix + key,
                Body=body,
                Metadata=dict(metadata or {}),
                IfNoneMatch="*",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(body).digest()).decode(),
                **lock,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            return False
        return True

    def get(self, key: str) -> bytes | None:
        """An object's content, None if there is none."""
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            return None

    def metadata(self, key: str) -> dict[str, str]:
        """What was noted beside an object."""
        return dict(self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)["Metadata"])

    def keys(self, under: str) -> Iterator[str]:
        """The keys that begin so, ascending."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + under)
        for page in pages:
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self._prefix)


class MemoryBucket(Bucket):
    """The same in a dict, for fast tests."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}

    def has_lock(self) -> bool:
        """A dict locks nothing."""
        return False

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Store an object."""
        if key in self.objects:
            return False
        self.objects[key] = body, dict(metadata or {})
        return True

    def get(self, key: str) -> bytes | None:
        """An object's content."""
        return self.objects[key][0] if key in self.objects else None

    def metadata(self, key: str) -> dict[str, str]:
        """What was noted beside an object."""
        return dict(self.objects[key][1])

    def keys(self, under: str) -> Iterator[str]:
        """The keys that begin so, ascending."""
        return iter(sorted(key for key in self.objects if key.startswith(under)))
