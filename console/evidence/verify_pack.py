"""Verify an evidence pack of fraudcase: python3 verify.py PACK --public-key KEY [--head FILE]

It needs Python 3.10 or later and nothing else: no server, no other file, no package. Get KEY (64 hexadecimal digits,
or a file with them) from the company that made the pack, not from the pack. Only with a head of its log that you have
kept can it detect that the log was rolled back. Exit 0: all is proved; 1: something is wrong; 2: nothing is wrong, but
it is not proved who made the pack, or that its log extends that head.
Checked: the file is exactly the zip of its members; every member matches the signed manifest; every head is signed, and
later ones only add to earlier ones (RFC 9162); every record is in the log (its leaf is recomputed from the shown bytes
and the hashes of withheld ones) and has the stated fields; every claim of completeness is true.
"""

import argparse
import hashlib
import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

FORMAT, HEAD_FORMAT, CASE_BUCKETS = "fraudcase pack v1", "fraudcase head v1", 1024


class PackFault(Exception):
    """A check that failed."""


class MissingProof(PackFault):
    """A check without a proof: nothing is wrong, but something is not proved."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise PackFault(message)


def canonical_json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# Ed25519, as in RFC 8032
P, ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def recover_point(data: bytes) -> Any:
    """Return the point that 32 bytes encode, as (X, Y, Z, T), or None."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        return None
    return (x, y, 1, x * y % P) if x & 1 == sign else (P - x, y, 1, (P - x) * y % P)


def add_points(one: Any, other: Any) -> Any:
    a, b = (one[1] - one[0]) * (other[1] - other[0]) % P, (one[1] + one[0]) * (other[1] + other[0]) % P
    c, d = 2 * one[3] * other[3] * D % P, 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


BASE = recover_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether S·B = R + h·A: compute S·B + h·(-A) in one pass and compare its encoding with R."""
    point, s = recover_point(key), int.from_bytes(signature[32:], "little")
    if len(key) != 32 or len(signature) != 64 or point is None or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    minus = (P - point[0], point[1], 1, P - point[3])
    table = (None, BASE, minus, add_points(BASE, minus))
    total = (0, 1, 1, 0)
    for bit in range(252, -1, -1):
        total = add_points(total, total)
        chosen = (s >> bit & 1) + 2 * (h >> bit & 1)
        if chosen:
            total = add_points(total, table[chosen])
    inverse = pow(total[2], P - 2, P)
    x, y = total[0] * inverse % P, total[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


def climb(at: int, last: int, path: list[bytes], start: bytes) -> tuple[bytes, bytes] | None:
    """Hash from a node up by its siblings; return the hash over all to its left, and over all (RFC 9162, 2.1)."""
    old = new = start
    for other in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            old, new = sha256(b"\x01" + other + old), sha256(b"\x01" + other + new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = sha256(b"\x01" + new + other)
        at, last = at >> 1, last >> 1
    return (old, new) if last == 0 else None


def is_included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    ends = climb(index, size - 1, path, leaf) if 0 <= index < size else None
    return ends is not None and ends[1] == root


def is_consistent(old_size: int, old_root: bytes, size: int, root: bytes, path: list[bytes]) -> bool:
    """Return whether a tree of `size` leaves begins with the older one."""
    if old_size == size:
        return not path and old_root == root
    path = [old_root, *path] if old_size & (old_size - 1) == 0 else list(path)
    if not path or not 0 < old_size < size:
        return False
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    return climb(at, last, path[1:], path[0]) == (old_root, root)


def make_zip(members: list[tuple[str, bytes]]) -> bytes:
    """Return the one zip of these members: uncompressed, in this order, dated 1980-01-01."""
    body, directory, offset = [], [], 0
    for name, data in members:
        encoded = name.encode()
        common = struct.pack("<5H3I2H", 20, 0x800, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        body += [b"PK\x03\x04", common, encoded, data]
        directory += [b"PK\x01\x02\x14\x03", common, struct.pack("<3H2I", 0, 0, 0, 0x81A40000, offset), encoded]
        offset += 4 + len(common) + len(encoded) + len(data)
    listed, count = b"".join(directory), len(members)
    return b"".join(body) + listed + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(listed), offset, 0)


def read_zip(pack: bytes) -> list[tuple[str, bytes]]:
    """Return the members of a zip that `make_zip` made. Raises PackFault."""
    members, at = [], 0
    while pack[at : at + 4] == b"PK\x03\x04" and at + 30 <= len(pack):
        size, length = struct.unpack_from("<I", pack, at + 22)[0], struct.unpack_from("<H", pack, at + 26)[0]
        begin = at + 30 + length
        members.append((pack[at + 30 : begin].decode(), pack[begin : begin + size]))
        at = begin + size
    expect(len(dict(members)) == len(members) > 0 and make_zip(members) == pack, "the file is not a valid pack")
    return members


class AvroReader:
    def __init__(self, data: bytes, names: dict[str, Any]) -> None:
        self.data, self.at, self.names = data, 0, names

    def take(self, count: int) -> bytes:
        expect(0 <= count <= len(self.data) - self.at, "a field ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return (value >> 1) ^ -(value & 1)

    def value(self, schema: Any) -> Any:
        if isinstance(schema, list):
            branch = self.number()
            expect(0 <= branch < len(schema), "a union does not have this branch")
            return self.value(schema[branch])
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind in self.names:
            return self.value(self.names[kind])
        if kind == "record":
            return {field["name"]: self.value(field["type"]) for field in schema["fields"]}
        if kind in ("array", "map"):
            return self.blocks(schema, kind)
        if kind in ("string", "bytes"):
            data = self.take(self.number())
            return data.decode("utf-8", "backslashreplace") if kind == "string" else data.hex()
        if kind in ("int", "long"):
            return self.number()
        if kind == "double":
            value = struct.unpack("<d", self.take(8))[0]
            return value if value - value == 0 else str(value)
        expect(kind in ("boolean", "null"), "a schema has an unsupported type")
        return self.take(1) != b"\x00" if kind == "boolean" else None

    def blocks(self, schema: Any, kind: str) -> Any:
        items, count = [], self.number()
        while count:
            if count < 0:
                count, _ = -count, self.number()
            for _ in range(count):
                key = [] if kind == "array" else [self.value("string")]
                items.append([*key, self.value(schema["items" if kind == "array" else "values"])])
            count = self.number()
        return [item for [item] in items] if kind == "array" else dict(items)


def named_schemas(schema: Any, names: dict[str, Any]) -> dict[str, Any]:
    """Return the records within a schema by name, because later fields may refer to them by name only."""
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        named_schemas(inner, names)
    if isinstance(schema, dict) and schema.get("type") == "record":
        names[schema["name"]] = names["fraudcase." + schema["name"]] = schema
    return names


def decode_fields(record: Any, schema: Any) -> dict[str, Any]:
    """Decode the fields of a record by name, without withheld ones. Raises PackFault."""
    names, fields = named_schemas(schema, {}), {}
    for field, (name, salt, data) in zip(schema["fields"], record["parts"][2:], strict=True):
        expect(field["name"] == name, "a part does not have the name of its field")
        if salt is not None:
            reader = AvroReader(bytes.fromhex(data), names)
            fields[name] = reader.value(field["type"])
            expect(reader.at == len(reader.data), "a field has bytes after its end")
    return fields


def leaf_of(record: Any) -> bytes:
    """Return the hash of a record's leaf: over its place, and over the salted hash of each part."""
    hashes = [
        bytes.fromhex(data) if salt is None else sha256(b"\x02" + bytes.fromhex(salt) + bytes.fromhex(data))
        for _, salt, data in record["parts"]
    ]
    is_valid = all(type(record[name]) is int for name in ("partition", "offset", "timestamp_ms", "index"))
    is_valid = is_valid and record["form"] in ("none", "whole", "fields", "digest")
    expect(is_valid and all(len(each) == 32 for each in hashes), "a record is not in the form of a record")
    place = [record["topic"], record["partition"], record["offset"], record["timestamp_ms"], record["form"]]
    place += ["" if record[name] is None else record[name] for name in ("schema_id", "schema")] + [len(hashes)]
    head = "".join("%s\n" % each for each in ["fraudcase record v1", *place])
    return sha256(b"\x00" + head.encode() + b"".join(hashes))


def read_head(body: bytes, key: bytes) -> Any:
    """Parse a head of the log. Raises PackFault unless it is signed and in its canonical form."""
    head = json.loads(body)
    unsigned = canonical_json({name: value for name, value in head.items() if name != "signature"})
    is_valid = is_signed(key, bytes.fromhex(head["signature"]), HEAD_FORMAT.encode() + b"\n" + unsigned)
    expect(is_valid, "a head is not signed by the key")
    expect(head["format"] == HEAD_FORMAT and canonical_json(head) == body, "a head is not in its canonical form")
    head["by_place"] = {(tree["topic"], tree["partition"]): tree for tree in head["trees"]}
    head["sha256"] = sha256(body).hex()
    return head


def check_growth(head: Any, old: Any, proofs: Any, places: Any) -> None:
    """Check that the pack's head extends an older head in number, time and each tree. Raises PackFault or
    MissingProof.
    """
    name = "head %d" % old["number"]
    expect(old["number"] < head["number"] and old["time_ms"] <= head["time_ms"], name + " is not older than the pack's")
    if old["number"] + 1 == head["number"]:
        expect(head["previous"] == old["sha256"], name + " is not the predecessor of the pack's head")
    for place, tree in old["by_place"].items():
        new = head["by_place"].get(place)
        expect(new is not None and tree["size"] <= new["size"], name + " has more records than the pack's")
        if tree["size"] == new["size"]:
            expect(tree["root"] == new["root"], name + " has a different log of the same length")
        elif place in places:
            path = proofs.get((place[0], place[1], old["number"]))
            if path is None:
                raise MissingProof(name + ": no proof that the pack's log extends it. Ask for a pack with --since-head")
            old_root, root, *path = (bytes.fromhex(each) for each in (tree["root"], new["root"], *path))
            is_prefix = is_consistent(tree["size"], old_root, new["size"], root, path)
            expect(is_prefix, name + " is not a prefix of the pack's log: the log was rewritten")


def check_records(members: dict[str, bytes], head: Any) -> dict[Any, Any]:
    """Check that every record is in the log; return the records by place and index. Raises PackFault."""
    found: dict[Any, Any] = {}
    for line in members["records.jsonl"].splitlines():
        record = json.loads(line)
        expect(canonical_json(record) == line, "a record is not in its canonical form")
        where = record["topic"], record["partition"], record["index"]
        name = "%s partition %d offset %d" % (*where[:2], record["offset"])
        expect(next(reversed(found), where[:0]) < where, name + " is out of order")
        tree = head["by_place"].get(where[:2])
        expect(tree is not None, name + ": the head has no such partition")
        path = [bytes.fromhex(each) for each in record["proof"]]
        is_valid = is_included(leaf_of(record), record["index"], tree["size"], path, bytes.fromhex(tree["root"]))
        expect(is_valid, name + " is not in the log in this form")
        if record["form"] == "fields":
            text = members.get("schemas/%s.avsc" % record["schema"], b"")
            expect(sha256(text).hex() == record["schema"], name + ": its schema is missing")
            schema = json.loads(text)
            expect(record["type"] == schema["name"], name + " does not have the stated type")
            is_valid = canonical_json(decode_fields(record, schema)) == canonical_json(record["data"])
            expect(is_valid, name + " does not have the stated fields")
        else:
            expect(record["type"] is None and record["data"] is None, name + " states fields that it cannot have")
        found[where] = record
    return found


def check_claim(claim: Any, records: dict[Any, Any], head: Any) -> str:
    """Check a claim of completeness; return it as text. Raises PackFault."""
    topic, partition = place = claim["topic"], claim["partition"]
    if claim["kind"] == "range":
        wanted = range(claim["first"], claim["last"] + 1)
        expect(all((topic, partition, index) in records for index in wanted) and len(wanted) > 0, "a range has a hole")
        return "all of %s partition %d from record %d to %d" % (topic, partition, wanted[0], wanted[-1])
    expect(claim["kind"] == "case", "a claim is of an unknown kind")
    entry, path = claim["entry"], [bytes.fromhex(each) for each in claim["path"]]
    name = sha256(claim["case_id"].encode()).hex()
    leaf = sha256(b"\x00" + json.dumps(entry, separators=(",", ":")).encode())
    is_valid = is_included(
        leaf, int(name[:3], 16) >> 2, CASE_BUCKETS, path, bytes.fromhex(head["by_place"][place]["cases"])
    )
    counts = [each[1:] for each in entry if each[0] == name]
    expect(is_valid and len(counts) == 1, "the head does not prove the number of events of the case")
    datas = [record["data"] or {} for where, record in records.items() if where[:2] == place]
    of_case = [data for data in datas if data.get("case_id") == claim["case_id"]]
    sequences = sorted(data["sequence"] for data in of_case if "sequence" in data)
    expect(sequences == list(range(1, counts[0][0] + 1)), "the case has %d events, the pack has others" % counts[0][0])
    expect(len(of_case) - len(sequences) == counts[0][1], "the case has %d answers, the pack has others" % counts[0][1])
    return "case %s with %d events and %d answers to commands" % (claim["case_id"], *counts[0])


def check(pack: bytes, public_key: bytes | None = None, seen: bytes | None = None) -> list[str]:
    """Check the bytes of a pack; return the proved statements as lines. Raises PackFault."""
    try:
        manifest, members, key = open_pack(pack, public_key)
        *older, head = [read_head(data, key) for name, data in sorted(members.items()) if name.startswith("heads/")]
        records = check_records(members, head)
        proofs = {(each["topic"], each["partition"], each["head"]): each["path"] for each in manifest["consistency"]}
        for old in older:
            check_growth(head, old, proofs, {where[:2] for where in records})
        lines = ["%d records are in the log in this form" % len(records)]
        claimed = ["complete: " + check_claim(claim, records, head) for claim in manifest["claims"]]
        lines += claimed or ["no completeness is claimed: the log may contain further records"]
        if seen is None:
            line = "head %d, log time %d ms: freshness is unproven, because no earlier head was given"
            return [*lines, line % (head["number"], head["time_ms"])]
        known = read_head(seen, key)
        for twin in [each for each in [*older, head] if each["number"] == known["number"]]:
            expect(twin["sha256"] == known["sha256"], "head %d differs from the one given" % known["number"])
        if known["sha256"] != head["sha256"]:
            rolled_back = "head %d was given, but the pack's head is %d" % (known["number"], head["number"])
            expect(known["number"] < head["number"], rolled_back)
            check_growth(head, known, proofs, {where[:2] for where in records})
        return [*lines, "head %d extends the given head %d" % (head["number"], known["number"])]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, RecursionError) as error:
        raise PackFault("the pack cannot be read: %s: %s" % (type(error).__name__, error)) from error


def open_pack(pack: bytes, public_key: bytes | None) -> tuple[Any, dict[str, bytes], bytes]:
    """Return the manifest, the members and the key that signed them. Raises PackFault."""
    ordered = read_zip(pack)
    members = dict(ordered)
    manifest, listed = json.loads(members["manifest.json"]), {name: sha256(data).hex() for name, data in ordered[2:]}
    is_valid = [name for name, _ in ordered] == ["manifest.json", "manifest.sig", *sorted(listed)]
    is_valid = is_valid and listed == manifest["members"] and manifest["format"] == FORMAT
    expect(is_valid, "a member does not match the manifest")
    key, signature = bytes.fromhex(manifest["key"]), bytes.fromhex(members["manifest.sig"].decode())
    expect(public_key is None or key == public_key, "the pack was not signed by the given key")
    is_valid = members["manifest.sig"] == signature.hex().encode()
    is_valid = is_valid and is_signed(key, signature, FORMAT.encode() + b"\n" + members["manifest.json"])
    expect(is_valid, "the manifest is not signed by the key")
    return manifest, members, key


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="Verify an evidence pack of fraudcase.")
    options.add_argument("pack")
    options.add_argument("--public-key", help="64 hexadecimal digits, or a file with them; not from the pack")
    options.add_argument("--head", help="file with the last head of the log that you have kept")
    given = options.parse_args(arguments)
    try:
        key = None if given.public_key is None else read_key(given.public_key)
        seen, pack = given.head and Path(given.head).read_bytes().strip(), Path(given.pack).read_bytes()
        lines = check(pack, key, seen)
    except (PackFault, OSError) as error:
        print(("UNPROVEN: %s" if isinstance(error, MissingProof) else "WRONG: %s") % error)
        return 2 if isinstance(error, MissingProof) else 1
    print("\n".join(lines))
    if key is None:
        own = json.loads(dict(read_zip(pack))["manifest.json"])["key"]
        print("UNPROVEN: who made the pack. Its key: %s, fingerprint %s" % (own, sha256(bytes.fromhex(own)).hex()[:32]))
        return 2
    print("PROVED: nothing was altered, signed by %s" % sha256(key).hex()[:32])
    return 0


def read_key(text: str) -> bytes:
    text = text if len(text) == 64 else Path(text).read_text().strip()
    expect(len(text) == 64 and not text.lower().strip("0123456789abcdef"), "the key is not 64 hexadecimal digits")
    return bytes.fromhex(text)


if __name__ == "__main__":
    sys.exit(main())
