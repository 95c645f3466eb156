"""Rule packs from files: by name, from YAML; every error is given with file, line and cure."""

from dataclasses import replace
from pathlib import Path

import pytest

from console.rules.files import load_pack, pack_names, parse_file
from domain.risk.default_packs import DEFAULT, THREE
from domain.risk.packs import BadRulePack, parse_pack

GOOD = """\
name: shop
version: 3
flag_at: 400
lists:
  watched: ["m1", "m2"]
rules:
  - name: fast
    family: velocity
    typology: rapid_spending
    points: 600
    severity: high
    reason_code: FAST
    by: card
    window_ms: 60s
    at_least: 5
  - name: large
    family: expression
    typology: unusual_amount
    points: "min(1000, amount_minor // 100)"
    when: merchant_id in watched or hour < 6
    value: amount_minor
    at_least: 50_000
  - name: away
    family: far_from_home
    typology: stolen_card
    points: 300
    minimum_m: 100_000
    channels: [ECOM]
"""


def test_a_file_is_read() -> None:
    pack = parse_file(GOOD, "shop.yaml")
    assert (pack.name, pack.version, pack.flag_at, pack.lists) == ("shop", 3, 400, {"watched": ("m1", "m2")})
    assert [rule.family for rule in pack.rules] == ["velocity", "expression", "far_from_home"]
    assert pack.canonical == (
        '{"flag_at":400,"lists":{"watched":["m1","m2"]},"name":"shop","rules":['
        '{"at_least":5,"by":"card","family":"velocity","name":"fast","points":600,"reason_code":"FAST",'
        '"severity":"high","typology":"rapid_spending","window_ms":60000},'
        '{"at_least":50000,"family":"expression","name":"large","points":"min(1000, amount_minor // 100)",'
        '"typology":"unusual_amount","value":"amount_minor","when":"merchant_id in watched or hour < 6"},'
        '{"channels":["ECOM"],"family":"far_from_home","minimum_m":100000,"name":"away","points":300,'
        '"typology":"stolen_card"}],"version":3}'
    )
    assert parse_pack(pack.canonical) == pack
    assert parse_file(pack.canonical, "shop.json") == pack


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(GOOD, "", "x.yaml:1: not a rule pack. Cure: begin it with name:", id="an empty file"),
        pytest.param(GOOD, "- a", "x.yaml:1: not a rule pack", id="a list"),
        pytest.param("rules:\n", "rules: [\n", "x.yaml:7: not valid YAML: ", id="malformed YAML"),
        pytest.param("name: shop", "name: 'shop", "x.yaml:", id="an open quote"),
        pytest.param(
            "name: shop", "name: &a !!python/object:os.system shop", "x.yaml:1: not valid YAML: ", id="a YAML tag"
        ),
        pytest.param(
            "flag_at: 400", "name: other", "x.yaml:3: name is given twice. Cure: remove one", id="a key twice"
        ),
        pytest.param("flag_at: 4", "flagat: 4", "x.yaml:3: flagat: unknown key. Cure: write flag_at", id="unknown key"),
        pytest.param("name: shop\n", "", "x.yaml:1: name: name is missing. Cure: add it", id="no name"),
        pytest.param("flag_at: 400", "flag_at: 0", "x.yaml:3: flag_at: must be at least 1, not 0", id="flag_at of 0"),
        pytest.param("version: 3", "version: '3'", "x.yaml:2: version: must be a whole number, not '3'", id="a text"),
        pytest.param('"m1"', "17", "x.yaml:5: lists.watched[0]: must be a text, not 17. Cure: put it", id="a number"),
        pytest.param(
            "watched: [", '"w x": [', "x.yaml:5: list 'w x' cannot be named in an expression", id="a list's name"
        ),
        pytest.param("family: velocity", "family: velo", "x.yaml:7: rules[0]: unknown family 'velo'", id="family"),
        pytest.param(
            "    family: velocity\n", "", "x.yaml:7: rules[0]: family is missing. Cure: add one of", id="no family"
        ),
        pytest.param(
            "by: card", "mesure: sum", "x.yaml:13: rules[0].mesure: unknown key. Cure: write measure", id="unknown key"
        ),
        pytest.param(
            "by: card",
            "by: name",
            "x.yaml:13: rules[0].by: 'name' is not allowed. Cure: write one of 'account'",
            id="by",
        ),
        pytest.param(
            "severity: high", "severity: huge", "x.yaml:11: rules[0].severity: 'huge' is not allowed", id="severity"
        ),
        pytest.param(
            "    window_ms: 60s\n", "", "x.yaml:7: rules[0].window_ms: window_ms is missing. Cure: add it", id="missing"
        ),
        pytest.param("60s", "60 s", "x.yaml:14: rules[0].window_ms: '60 s' is not a duration", id="a bad duration"),
        pytest.param("60s", "40d", "x.yaml:14: rules[0].window_ms: must be at most 3024000000", id="too long"),
        pytest.param("60s", "1.5", "x.yaml:14: rules[0].window_ms: must be a whole number, not 1.5", id="a fraction"),
        pytest.param("at_least: 5\n", "at_least: 0\n", "x.yaml:15: rules[0].at_least: must be at least 1", id="a zero"),
        pytest.param(
            "at_least: 5\n",
            "at_least: 1001\n",
            "x.yaml:15: rule 'fast': at_least must be between 1 and 1000, not 1001",
            id="more than is looked back to",
        ),
        pytest.param(
            "points: 600", "points: [6]", "x.yaml:10: rules[0].points: must be a whole number or an exp", id="points"
        ),
        pytest.param("points: 600", "points: 1001", "x.yaml:10: rule 'fast': points must be between 1", id="points"),
        pytest.param(
            "points: 600", "points: hour > 5", "x.yaml:10: rule 'fast': points must be an integer", id="points as truth"
        ),
        pytest.param("name: large", "name: fast", "x.yaml:16: rule 'fast': each rule needs a name of its", id="twice"),
        pytest.param(
            "hour < 6",
            "our < 6",
            "x.yaml:20: rule 'large': when: column 27: unknown feature our. Cure: write hour",
            id="an unknown feature",
        ),
        pytest.param(
            "in watched", "in wached", "x.yaml:20: rule 'large': when: column 16: the pack has no list", id="no list"
        ),
        pytest.param(
            "hour < 6", "hour", "x.yaml:20: rule 'large': when: column 27: hour is an integer, not a truth", id="types"
        ),
        pytest.param(
            "when: merchant_id in watched or hour < 6",
            "when: hour",
            "x.yaml:20: rule 'large': when must be a truth value, this is an integer. Cure: compare it",
            id="a guard that is no truth value",
        ),
        pytest.param(
            "value: amount_minor",
            "value: country",
            "x.yaml:21: rule 'large': value must be an integer or a truth value, this is a text",
            id="a text has no threshold",
        ),
        pytest.param("[ECOM]", "ECOM", "x.yaml:28: rules[2].channels: ", id="a list is needed"),
        pytest.param(
            "by: card",
            "by: merchant\n    when: count(account, 5) > 2",
            "x.yaml:14: rule 'fast': when looks back, but the merchant knows no account's past",
            id="a rule by merchant cannot ask an account",
        ),
    ],
)
def test_a_bad_file_is_refused_with_line_and_cure(old: str, new: str, message: str) -> None:
    with pytest.raises(BadRulePack) as caught:
        parse_file(GOOD.replace(old, new, 1), "x.yaml")
    assert str(caught.value).startswith(message)


def test_all_errors_are_named_at_once() -> None:
    with pytest.raises(BadRulePack) as caught:
        parse_file(GOOD.replace("60s", "0").replace("version: 3", "version: x").replace("[ECOM]", "[1]"), "x.yaml")
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "14", "28"]
    assert all("Cure: " in line for line in lines)


def test_packs_are_found_by_name_or_file(tmp_path: Path) -> None:
    assert load_pack("default") == DEFAULT
    assert load_pack("three") == THREE
    file = tmp_path / "shop.yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert load_pack(str(file)).name == "shop"
    with pytest.raises(
        BadRulePack, match=r"nowhere is neither a file nor .* Cure: name a file, or one of default, three"
    ):
        load_pack("nowhere")
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadRulePack, match="Cure: save it as UTF-8"):
        load_pack(str(file))


@pytest.mark.parametrize("name", pack_names())
def test_every_bundled_pack_is_valid(name: str) -> None:
    pack = load_pack(name)
    assert pack.name == name
    assert parse_pack(pack.canonical) == pack


def test_the_default_pack_needs_no_lists() -> None:
    assert not DEFAULT.lists
    assert not {rule.family for rule in DEFAULT.rules} & {"blocklist", "allowlist"}


def test_default_values_do_not_change_the_pack_id() -> None:
    """A pack that was activated before a parameter existed keeps its id."""
    assert THREE.rules[0].severity == "medium"
    assert "severity" not in THREE.canonical
    assert replace(THREE, name="default").pack_id == "bdc27269c080341d6c563a8eeb8b6dda8b1b256396e718051a2fa64c7657496a"
