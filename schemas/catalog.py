"""Catalogue of the Avro schemas by name and version, from the files `avro/<log>/<record>.v<version>.avsc`."""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastavro import parse_schema

NAMESPACE = "fraudcase"
_FILE = re.compile(r"(?P<stem>[a-z_]+)\.v(?P<version>[0-9]+)\.avsc")


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """Schema of one version of a record type."""

    name: str
    version: int
    text: str

    @property
    def subject(self) -> str:
        """Return the registry subject: the record's full name, by the registry's RECORD strategy."""
        return f"{NAMESPACE}.{self.name}"


@cache
def all_schemas() -> tuple[RecordSchema, ...]:
    """Return every schema, sorted by name and ascending version."""
    schemas = []
    folders = [folder for folder in files("schemas").joinpath("avro").iterdir() if folder.is_dir()]
    for file in (file for folder in folders for file in folder.iterdir()):
        matched = _FILE.fullmatch(file.name)
        if matched:
            text = file.read_text(encoding="utf-8")
            schemas.append(RecordSchema(json.loads(text)["name"], int(matched["version"]), text))
    return tuple(sorted(schemas, key=lambda schema: (schema.name, schema.version)))


@cache
def latest(name: str) -> RecordSchema:
    """Return the newest version of a record type. Raise KeyError for an unknown name."""
    versions = [schema for schema in all_schemas() if schema.name == name]
    if not versions:
        raise KeyError(f"no schema is named {name!r}; the schemas are the files in schemas/avro/")
    return versions[-1]


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Return a record's name, without our namespace, and its schema as fastavro parses it.

    Logical types are left out: the bytes are the same, and times stay integers.
    """
    document = json.loads(text)
    parsed: dict[str, Any] = parse_schema(_without_logical_types(document))
    return str(parsed["name"]).removeprefix(f"{NAMESPACE}."), parsed


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    if isinstance(node, list):
        return [_without_logical_types(item) for item in node]
    return node
