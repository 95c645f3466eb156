"""The compiled readers and writers of our schemas agree with fastavro, on valid bytes and on damaged ones."""

from io import BytesIO
from struct import error as struct_error
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import all_schemas, parse
from schemas.compiled import UnsupportedSchema, compile_reader, compile_writer

SCHEMAS = {f"{schema.name} {schema.version}": parse(schema.text)[1] for schema in all_schemas()}
STRANGE = parse(
    """{"type": "record", "name": "Strange", "fields": [
        {"name": "flag", "type": "boolean"}, {"name": "raw", "type": "bytes"},
        {"name": "counts", "type": {"type": "map", "values": "long"}, "default": {"a": 1}},
        {"name": "lists", "type": {"type": "array", "items": {"type": "array", "items": "int"}}},
        {"name": "inner", "type": {"type": "record", "name": "Inner", "fields": [
            {"name": "x", "type": ["null", "double"], "default": null},
            {"name": "many", "type": {"type": "array", "items": ["null", "string"]}}]}}]}"""
)[1]
ALL = [*SCHEMAS.values(), STRANGE]
_SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(codec="utf-8"), max_size=200),
    "bytes": st.binary(max_size=100),
    "long": st.integers(-(2**63), 2**63 - 1),
    "int": st.integers(-(2**31), 2**31 - 1),
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
    "null": st.none(),
}


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Draw any value that fits a schema."""
    if isinstance(schema, list):
        return st.one_of([values(branch) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=5)
    if kind == "map":
        return st.dictionaries(_SIMPLE["string"], values(schema["values"]), max_size=5)
    return _SIMPLE[kind] if isinstance(kind, str) else values(kind)


def interpreted(schema: dict[str, Any], data: Any) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, schema, data)
    return stream.getvalue()


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ALL).flatmap(lambda schema: st.tuples(st.just(schema), values(schema))))
def test_bytes_and_values_equal_those_of_fastavro(pair: tuple[dict[str, Any], Any]) -> None:
    schema, data = pair
    written = compile_writer(schema)(data)
    assert written == interpreted(schema, data)
    assert compile_reader(schema)(b"head!" + written, 5) == (
        schemaless_reader(BytesIO(written), schema, None),
        5 + len(written),
    )


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(ALL).flatmap(lambda schema: st.tuples(st.just(schema), values(schema))),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3),
    st.integers(0, 400),
)
def test_damaged_bytes_are_read_as_by_fastavro_or_refused(
    pair: tuple[dict[str, Any], Any], changes: list[tuple[int, int]], cut: int
) -> None:
    schema, data = pair
    damaged = bytearray(interpreted(schema, data))
    for position, byte in changes:
        damaged[position % max(1, len(damaged)) : position % max(1, len(damaged)) + 1] = bytes([byte])
    value = bytes(damaged[: len(damaged) - cut % 5])
    try:
        found, end = compile_reader(schema)(value, 0)
    except (ValueError, IndexError, ArithmeticError, MemoryError, struct_error):
        return
    if end == len(value):
        stream = BytesIO(value)
        assert schemaless_reader(stream, schema, None) == found
        assert stream.tell() == end


def test_a_missing_field_has_its_default_and_a_wrong_one_is_refused() -> None:
    write = compile_writer(STRANGE)
    data = {"flag": True, "raw": b"", "lists": [], "inner": {"many": []}}
    assert write(data) == interpreted(STRANGE, {**data, "counts": {"a": 1}, "inner": {"x": None, "many": []}})
    wrong: list[dict[str, Any]] = [
        {"raw": "text"}, {"lists": [[2**31]]}, {"counts": {"a": 2**63}}, {"counts": {"a": 1.5}},
        {"inner": {"many": [7]}},
    ]  # fmt: skip
    for each in wrong:
        with pytest.raises((TypeError, ValueError, OverflowError, AttributeError)):
            write({**data, **each})
    with pytest.raises(KeyError):
        write({"flag": True})


def test_records_may_come_as_tuples_in_another_order() -> None:
    inner = {"x": 1.5, "many": ["a"]}
    data = {"flag": True, "raw": b"", "counts": {}, "lists": [], "inner": inner}
    tupled = {**data, "inner": (["a"], "left out", 1.5)}
    assert compile_writer(STRANGE, {"Inner": ("many", "more", "x")})(tupled) == compile_writer(STRANGE)(data)


@pytest.mark.parametrize(
    "kind", ['{"type": "enum", "name": "E", "symbols": ["A"]}', '{"type": "fixed", "name": "F", "size": 2}', '"float"']
)
def test_unsupported_types_use_fastavro(kind: str) -> None:
    schema = parse(f'{{"type": "record", "name": "R", "fields": [{{"name": "a", "type": {kind}}}]}}')[1]
    for compile_it in (compile_reader, compile_writer):
        with pytest.raises(UnsupportedSchema):
            compile_it(schema)
