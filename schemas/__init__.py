"""Avro schemas by record and version, and how records become bytes."""
