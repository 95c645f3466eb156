"""docs/rules is complete and correct: every family, parameter, feature and function is documented, and examples
compile.
"""

import re
from pathlib import Path

import pytest
import yaml

from console.rules.files import parse_file
from domain.risk.families.registry import FAMILIES
from domain.risk.families.rule import Rule, parameters
from domain.risk.features import FEATURES, FUNCTIONS, KEYS
from domain.risk.packs import parse_pack
from tests.support.payments import admitted, new_fold, payment

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "rules"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMON = set(Rule.__dataclass_fields__)


def page(family: str) -> str:
    return (ROOT / FAMILIES[family].documentation).read_text(encoding="utf-8")


def examples(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)


def test_there_is_one_page_for_each_family() -> None:
    assert {file.stem for file in FOLDER.glob("*.md")} == {"README", *FAMILIES}
    assert [kind.documentation for kind in FAMILIES.values()] == [f"docs/rules/{family}.md" for family in FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_page_has_formula_parameters_example_and_source(family: str) -> None:
    text = page(family)
    assert f"[{family}]({family}.md)" in README
    assert text.startswith(f"# {family}\n")
    for part in ("**Formula.**", "**Example.**", "**Source.**"):
        assert part in text
    for name in parameters(FAMILIES[family]).keys() - COMMON:
        assert f"| `{name}` |" in text
    scales = "yes" if FAMILIES[family].scales else "no"
    assert re.search(rf"\[{family}\]\({family}\.md\) \| [^|]* \| {scales} \|", README)


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_on_a_page_are_valid(family: str) -> None:
    (text,) = examples(page(family))
    head = {"name": "page", "version": 1, "lists": {"watched": ["pawnshop"]}}
    pack = parse_file(yaml.safe_dump({**head, "rules": yaml.safe_load(text)}), "page.yaml")
    assert {FAMILIES[family]} == {type(rule) for rule in pack.rules}


def test_pack_in_the_readme_is_valid() -> None:
    (text,) = examples(README)
    pack = parse_file(text, "shop.yaml")
    assert parse_pack(pack.canonical) == pack


@pytest.mark.parametrize("name", [*FEATURES, *FUNCTIONS])
def test_every_feature_is_documented(name: str) -> None:
    assert re.search(rf"^\|[^|]*`{name}[`(]", README, flags=re.MULTILINE)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_documented(key: str) -> None:
    assert f"`{key}`" in README


def test_rule_of_the_tutorial_flags_its_payments() -> None:
    """Version 1 of Flink's fraud detection: an amount below 1.00 directly followed by one above 500.00."""
    (text,) = examples(page("expression"))
    rules = [rule for rule in yaml.safe_load(text) if rule["name"] == "tested"]
    pack = parse_file(yaml.safe_dump({"name": "flink", "version": 1, "rules": rules}), "flink.yaml")
    fold = new_fold(pack)
    amounts = [18823, 37449, 11, 40, 87115, 2, 50_000, 99, 50_001]
    payments = [
        admitted(payment(f"tx-{n}", amount_minor=amount, event_time=1_700_000_000_000 + n * 360_000))
        for n, amount in enumerate(amounts)
    ]
    for offset, each in enumerate(payments):
        fold.step(each, offset)
    assert [each.amount_minor for each in payments if fold.decision(each).rules] == [87115, 50_001]
