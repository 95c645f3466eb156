"""Clients of the object and the document store."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

CONNECTIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Where a store is and how to get in; what is None comes from where AWS's own tools look for it."""

    url: str | None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


def s3_client(options: StoreOptions) -> "S3Client":
    """An S3 client that repeats what failed on the way."""
    client: S3Client = _client("s3", options)
    return client


def dynamodb_client(options: StoreOptions) -> "DynamoDBClient":
    """A DynamoDB client that repeats what failed on the way: every write of ours is idempotent."""
    client: DynamoDBClient = _client("dynamodb", options)
    return client


def _client(service: str, options: StoreOptions) -> Any:
    import boto3  # a sixth of a second, which each process of a replay from Kafka would spend for nothing
    from botocore.config import Config

    config = Config(
        max_pool_connections=CONNECTIONS,
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 5},
        request_checksum_calculation="when_required",
    )
    return boto3.client(  # type: ignore[call-overload]  # there is one overload for each service
        service,
        endpoint_url=options.url,
        region_name=options.region,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        config=config,
    )
