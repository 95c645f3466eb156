"""Avro schemas by record and version, their codecs, and the names of the logs."""
