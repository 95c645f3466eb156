"""Client of the schema registry: registers our schemas, and looks up writer schemas by id."""

from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from schemas.catalog import all_schemas, latest

COMPATIBILITY = "FULL_TRANSITIVE"
"""Compatibility mode of every subject. Replay reads every version with every reader, so it must be transitive."""
_NOT_FOUND = 404


class SchemaRegistry:
    """Registry with Confluent's protocol at `url`. `retries` is the maximum number of retries of a request."""

    def __init__(self, url: str, retries: int = 3) -> None:
        self._client = SchemaRegistryClient({"url": url, "max.retries": retries})
        self._unknown: set[int] = set()

    def register_all(self) -> None:
        """Register every version of every schema, oldest first. Registered ones stay unchanged."""
        for schema in all_schemas():
            self._client.register_schema(schema.subject, RegistrySchema(schema.text, "AVRO"))
            self._client.set_compatibility(schema.subject, COMPATIBILITY)

    def ids(self) -> dict[str, int]:
        """Return the ids of the newest schemas by record name. Raise SchemaRegistryError if one is not registered."""
        names = {schema.name for schema in all_schemas()}
        return {name: self._id(name) for name in sorted(names)}

    def _id(self, name: str) -> int:
        schema = latest(name)
        registered_id: int | None = self._client.lookup_schema(
            schema.subject, RegistrySchema(schema.text, "AVRO")
        ).schema_id
        assert registered_id is not None
        return registered_id

    def schema_text(self, schema_id: int) -> str | None:
        """Return the text of a schema by id, or None. Unknown ids are cached.

        Raise SchemaRegistryError if the registry answers with an error.
        """
        if schema_id in self._unknown:
            return None
        try:
            text: str | None = self._client.get_schema(schema_id).schema_str
        except SchemaRegistryError as error:
            if error.http_status_code != _NOT_FOUND:
                raise
            self._unknown.add(schema_id)
            return None
        return text
