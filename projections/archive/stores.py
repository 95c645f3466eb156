"""Clients of S3 and DynamoDB."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

CONNECTIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Address of a store and its credentials. None means the default of AWS's own tools."""

    url: str | None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None


def s3_client(options: StoreOptions) -> "S3Client":
    """Return an S3 client that retries failed requests."""
    client: S3Client = _client("s3", options)
    return client


def dynamodb_client(options: StoreOptions) -> "DynamoDBClient":
    """Return a DynamoDB client that retries failed requests; all of our writes are idempotent."""
    client: DynamoDBClient = _client("dynamodb", options)
    return client


def _client(service: str, options: StoreOptions) -> Any:
    import boto3  # here, because it takes 0.17 s that the processes of a replay from Kafka need not spend
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
