"""Avro readers and writers compiled from a schema: two to three times as fast as an interpreter.

Each function is made as `dataclasses` makes its methods: source text from the schema, compiled once. The tests compare
every function with fastavro, byte by byte. A schema with a type that none of our records has raises UnsupportedSchema,
and fastavro reads and writes it instead.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from struct import Struct
from types import MappingProxyType
from typing import Any, Final

Reader = Callable[[bytes, int], tuple[Any, int]]
"""Function that reads a record at a position. It returns the fields and the end, which may lie beyond the bytes."""
Writer = Callable[[Mapping[str, Any]], bytes]
"""Function that encodes fields, or raises KeyError, TypeError, AttributeError, ValueError or OverflowError."""
Splitter = Callable[[bytes, int], tuple[tuple[bytes, ...], tuple[Any, ...], int]]
"""Function that cuts a record at a position. It returns the bytes of each field, the wanted values, and the end."""

_DOUBLE: Final = Struct("<d")
_MAX_BITS: Final = 63


class UnsupportedSchema(ValueError):
    """Schema that the compiler does not support; fastavro has to be used."""


class Malformed(ValueError):
    """Bytes that no writer of the schema can have written."""


# -- helpers of the compiled functions -----------------------------------------------------------


def _rest(data: bytes, position: int, first: int) -> tuple[int, int]:
    """Read the rest of a variable-length number after its first byte. Return its unsigned value and its end."""
    second = data[position]
    if second < 128:  # most amounts
        return first & 127 | second << 7, position + 1
    position += 1
    value, shift = first & 127 | (second & 127) << 7, 14
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                raise Malformed("a number has more than 64 bits")
            return value, position
        shift += 7
        if shift > _MAX_BITS:
            raise Malformed("a number has more than 64 bits")


def _length(data: bytes, position: int, first: int) -> tuple[int, int]:
    """Read a length of two or more bytes, or refuse a negative one. Return twice the length, and the end position."""
    value, position = _rest(data, position, first) if first > 127 else (first, position)
    if value & 1:
        raise Malformed("a length is negative")
    return value, position


def _count(data: bytes, position: int) -> tuple[int, int]:
    """Read the item count of a block. Return it and the position of the first item.

    A negative count is followed by the block's size in bytes.
    """
    value, position = data[position], position + 1
    if value > 127:
        value, position = _rest(data, position, value)
    if not value & 1:
        return value >> 1, position
    size, position = data[position], position + 1
    if size > 127:
        size, position = _rest(data, position, size)
    return (value + 1) >> 1, position


def _number(value: int) -> bytes:
    """Encode a long: zigzag, seven bits per byte, least significant bits first."""
    if not -(1 << 63) <= value < 1 << 63:
        raise OverflowError(f"{value} is no 64-bit number")
    value = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL: Final = [_number(value) for value in range(4096)]


def _long(value: int) -> bytes:
    return _SMALL[value] if 0 <= value < 4096 else _number(value)


def _int(value: int) -> bytes:
    if not -(1 << 31) <= value < 1 << 31:
        raise OverflowError(f"{value} is no 32-bit number")
    return _long(value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _long(len(encoded)) + encoded


def _raw(value: bytes) -> bytes:
    return _long(len(value)) + value


def _boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


_WRITERS: Final = {
    "string": "_text({})",
    "bytes": "_raw({})",
    "long": "(_SMALL[n] if -1 < (n := {}) < 4096 else _number(n))",
    "int": "_int({})",
    "boolean": "_boolean({})",
    "double": "_pack({})",
}
_NAMES: Final[dict[str, Any]] = {
    "_rest": _rest, "_length": _length, "_count": _count, "_long": _long, "_int": _int, "_text": _text, "_raw": _raw,
    "_boolean": _boolean, "_SMALL": _SMALL, "_number": _number, "_pack": _DOUBLE.pack,
    "_unpack": _DOUBLE.unpack_from, "_Malformed": Malformed,
}  # fmt: skip


# -- compilation ---------------------------------------------------------------------------------


class _FunctionSource:
    """Source lines of a function under construction, and the constants that it uses."""

    def __init__(self, tuples: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self.tuples = tuples
        self.lines: list[str] = []
        self.constants: dict[str, Any] = dict(_NAMES)
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def order_of(self, record: Mapping[str, Any]) -> Sequence[str] | None:
        """Return the order of a record's fields in a tuple, or None if the record is a dict."""
        return self.tuples.get(record["name"].rpartition(".")[2])

    def function(self, head: str) -> Any:
        text = "\n".join([head, *self.lines])
        defined: dict[str, Any] = {}
        exec(compile(text, "<avro>", "exec"), self.constants, defined)  # noqa: S102 - the text is ours, no schema's
        return next(iter(defined.values()))


def compile_reader(schema: Mapping[str, Any], tuples: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Reader:
    """Compile a reader of a record's schema. Raise UnsupportedSchema.

    `tuples` names the records, this or nested ones, that are returned as tuples, with their fields. A field that the
    schema lacks is None.
    """
    source = _FunctionSource(tuples)
    source.add(1, f"return {_read(source, 1, schema)}, p")
    reader: Reader = source.function("def read(b, p):")
    return reader


def compile_splitter(schema: Mapping[str, Any], wanted: Sequence[str] = ()) -> Splitter:
    """Compile a function that cuts a record into the bytes of its fields, in order. Raise UnsupportedSchema.

    It accepts the same bytes as the reader, because it reads every field.
    """
    source = _FunctionSource()
    cuts, held = ["f0"], {}
    source.add(1, "f0 = p")
    for number, field in enumerate(schema["fields"], start=1):
        held[field["name"]] = _read(source, 1, field["type"])
        source.add(1, f"f{number} = p")
        cuts.append(f"f{number}")
    slices = "".join(f"b[{begin}:{end}], " for begin, end in pairwise(cuts))
    values = "".join(f"{held.get(name)}, " for name in wanted)
    source.add(1, f"return ({slices}), ({values}), p")
    splitter: Splitter = source.function("def split(b, p):")
    return splitter


def _read(source: _FunctionSource, depth: int, schema: Any) -> str:
    """Add lines that read one value. Return the name of the variable that then holds it."""
    kind = _kind(schema)
    name = source.name()
    if kind == "record":
        held = {field["name"]: _read(source, depth, field["type"]) for field in schema["fields"]}
        order = source.order_of(schema)
        if order is None:
            expression = f"{{{', '.join(f'{key!r}: {value}' for key, value in held.items())}}}"
        else:
            expression = f"({''.join(f'{held.get(key)}, ' for key in order)})"
        source.add(depth, f"{name} = {expression}")
    elif kind == "union":
        _read_union(source, depth, schema, name)
    elif kind in ("array", "map"):
        _read_blocks(source, depth, schema, kind, name)
    elif kind in ("string", "bytes"):
        tail = ".decode()" if kind == "string" else ""
        source.add(depth, "n = b[p]; p += 1", "if n & 129: n, p = _length(b, p, n)", "e = p + (n >> 1)")
        source.add(depth, f"{name} = b[p:e]{tail}; p = e")
    elif kind in ("long", "int"):
        source.add(depth, "n = b[p]; p += 1", "if n > 127: n, p = _rest(b, p, n)")
        source.add(depth, f"{name} = (n >> 1) ^ -(n & 1)")
    elif kind == "double":
        source.add(depth, f"{name} = _unpack(b, p)[0]; p += 8")
    elif kind == "boolean":
        source.add(depth, f"{name} = b[p] != 0; p += 1")
    else:
        source.add(depth, f"{name} = None")
    return name


def _read_union(source: _FunctionSource, depth: int, branches: list[Any], name: str) -> None:
    source.add(depth, "n = b[p]; p += 1")
    for number, branch in enumerate(branches):
        source.add(depth, f"{'el' if number else ''}if n == {number * 2}:")
        held = _read(source, depth + 1, branch)
        source.add(depth + 1, f"{name} = {held}")
    source.add(depth, "else: raise _Malformed('a union has no such branch')")


def _read_blocks(source: _FunctionSource, depth: int, schema: Any, kind: str, name: str) -> None:
    items_left = source.name()
    source.add(depth, f"{name} = {'[]' if kind == 'array' else '{}'}", f"{items_left} = b[p]")
    source.add(depth, f"if not {items_left}: p += 1", f"while {items_left}:", f"    {items_left}, p = _count(b, p)")
    source.add(depth + 1, f"for _ in range({items_left}):")
    if kind == "array":
        held = _read(source, depth + 2, schema["items"])
        source.add(depth + 2, f"{name}.append({held})")
    else:
        key = _read(source, depth + 2, "string")
        held = _read(source, depth + 2, schema["values"])
        source.add(depth + 2, f"{name}[{key}] = {held}")


def compile_writer(schema: Mapping[str, Any], tuples: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Writer:
    """Compile a writer of a record's schema. Raise UnsupportedSchema.

    `tuples` names the records that are given as tuples, with the order of their fields. No dict is made of them.
    """
    source = _FunctionSource(tuples)
    source.add(1, f"return {_write(source, schema, 'd')}")
    writer: Writer = source.function("def write(d):")
    return writer


def _write(source: _FunctionSource, schema: Any, value: str) -> str:
    """Return an expression for the bytes of the value that `value` denotes."""
    kind = _kind(schema)
    if kind == "record":
        order = source.order_of(schema)
        parts: list[str] = []
        for field in schema["fields"]:
            place = _field(source, field, value) if order is None else f"{value}[{order.index(field['name'])}]"
            parts += _pieces(source, field["type"], place)
        return f"b''.join(({', '.join(parts)},))"
    if kind == "union":
        if len(schema) != 2 or schema[0] != "null":
            raise UnsupportedSchema("a union other than of null and something")
        name = source.name()
        return f"(b'\\0' if ({name} := {value}) is None else b'\\2' + {_write(source, schema[1], name)})"
    if kind in ("array", "map"):
        name, item, key = source.name(), source.name(), source.name()
        if kind == "array":
            items = f"{_write(source, schema['items'], item)} for {item} in {name}"
        else:
            entry = f"_text({key}) + {_write(source, schema['values'], item)}"
            items = f"{entry} for {key}, {item} in {name}.items()"
        return f"(_long(len({name})) + b''.join([{items}]) + b'\\0' if ({name} := {value}) else b'\\0')"
    if kind == "null":
        raise UnsupportedSchema("nothing but null")
    return _WRITERS[kind].format(value)


def _pieces(source: _FunctionSource, schema: Any, value: str) -> list[str]:
    """Return expressions whose bytes, joined, are those of a value. A text has two, so that it is copied once."""
    if _kind(schema) != "string":
        return [_write(source, schema, value)]
    name = source.name()
    return [f"(_SMALL[n] if (n := len({name} := {value}.encode())) < 4096 else _number(n))", name]


def _field(source: _FunctionSource, field: Mapping[str, Any], record: str) -> str:
    key = repr(field["name"])
    if "default" not in field:
        return f"{record}[{key}]"
    default = "None" if field["default"] is None else source.constant(field["default"])
    return f"{record}.get({key}, {default})"


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    kind = schema["type"] if isinstance(schema, Mapping) else schema
    if kind in ("record", "array", "map", "null") or kind in _WRITERS:
        return str(kind)
    raise UnsupportedSchema(f"{json.dumps(kind)[:80]} is left to fastavro")
