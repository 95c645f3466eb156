"""The bucket of the archive, on S3 and in memory."""

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
    """Object Lock period of new objects, in days."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: int
    now: Callable[[], datetime]


_NO_LOCK = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented")


class Bucket:
    """The objects of one system under its prefix. With a retention, new objects are locked for its period."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str, retention: Retention | None = None) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._retention = retention

    def has_lock(self) -> bool:
        """Return whether Object Lock is enabled for the bucket."""
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

    def with_retention(self, retention: Retention) -> "Bucket":
        """Return the same bucket with new objects locked for a period."""
        return Bucket(self._client, self._bucket, self._prefix, retention)

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Store a new object; return False if the key exists. The store checks the object's SHA-256."""
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
        """Return the content of an object, or None if it does not exist."""
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            return None

    def metadata(self, key: str) -> dict[str, str]:
        """Return the metadata of an object."""
        return dict(self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)["Metadata"])

    def keys(self, under: str) -> Iterator[str]:
        """Yield the keys that begin with `under`, in ascending order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + under)
        for page in pages:
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self._prefix)


class MemoryBucket(Bucket):
    """A bucket in a dict, for fast tests."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}

    def has_lock(self) -> bool:
        """Return False: a dict locks nothing."""
        return False

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Store a new object; return False if the key exists."""
        if key in self.objects:
            return False
        self.objects[key] = body, dict(metadata or {})
        return True

    def get(self, key: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist."""
        return self.objects[key][0] if key in self.objects else None

    def metadata(self, key: str) -> dict[str, str]:
        """Return the metadata of an object."""
        return dict(self.objects[key][1])

    def keys(self, under: str) -> Iterator[str]:
        """Yield the keys that begin with `under`, in ascending order."""
        return iter(sorted(key for key in self.objects if key.startswith(under)))
