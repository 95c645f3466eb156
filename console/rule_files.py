"""Rule packs by name, or from a file of YAML or JSON in the form of `RulePack.canonical`."""

import json
from pathlib import Path

import yaml

from domain.rules import DEFAULT, BadRulePack, RulePack, parse_pack


def load_pack(name_or_file: str) -> RulePack:
    """The pack of that name, or in that file. Raises BadRulePack."""
    if name_or_file == DEFAULT.name:
        return DEFAULT
    path = Path(name_or_file)
    if not path.is_file():
        raise BadRulePack(f"{name_or_file} is neither a file nor a pack that comes along ({DEFAULT.name})")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRulePack(f"{path} is no YAML: {error}") from error
    return parse_pack(json.dumps(document))
