"""Locked segments on a store with Object Lock: Versitygw, whose program FRAUDCASE_VERSITYGW names."""

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from projections.archive.bucket import Bucket, Retention
from projections.archive.stores import StoreOptions, s3_client
from tests.support.collection import VERSITYGW
from tests.support.stage import free_port


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    port = free_port()
    for name in ("data", "versions"):
        (tmp_path / name).mkdir()
    command = [VERSITYGW, "--access", "local", "--secret", "locallocal", "--port", f"127.0.0.1:{port}", "--quiet"]
    command += ["posix", "--versioning-dir", str(tmp_path / "versions"), str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        made = s3_client(
            StoreOptions(
                url=f"http://127.0.0.1:{port}",
                region="us-east-1",
                access_key_id="local",
                secret_access_key="locallocal",
            )
        )
        try:
            for _ in range(100):
                try:
                    made.list_buckets()
                except (BotoCoreError, ClientError):
                    time.sleep(0.1)
                else:
                    break
            made.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
            made.create_bucket(Bucket="plain")
            yield made
        finally:
            process.terminate()


def test_a_locked_segment_cannot_be_deleted(client: Any) -> None:
    plain = Bucket(client, "locked", "p/")
    assert plain.has_lock()
    assert not Bucket(client, "plain", "").has_lock()
    retention = Retention(mode="COMPLIANCE", days=1, now=lambda: datetime.now(UTC))
    assert plain.with_retention(retention).put_new("log/segment", b"records", {"last-offset": "1"})
    assert not plain.with_retention(retention).put_new("log/segment", b"others")
    version = client.head_object(Bucket="locked", Key="p/log/segment")["VersionId"]
    with pytest.raises(ClientError) as refused:
        client.delete_object(Bucket="locked", Key="p/log/segment", VersionId=version)
    assert refused.value.response["Error"]["Code"] in ("AccessDenied", "ObjectLocked")
    assert plain.get("log/segment") == b"records"
