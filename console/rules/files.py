"""Rule packs by name, or from a file of YAML or JSON. Each error names the line and a cure.

pydantic checks the form, with models that are made from the rules' dataclasses; `domain.risk.packs.parse_pack` checks
conditions between the parts of a pack, and expressions.
"""

import json
from collections.abc import Hashable
from dataclasses import MISSING, fields
from functools import cache, reduce
from importlib.resources import files
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, ValidationError, create_model
from pydantic_core import ErrorDetails

from domain.durations import duration_ms
from domain.risk.default_packs import DEFAULT, THREE
from domain.risk.expression import suggest_name
from domain.risk.families.registry import FAMILIES
from domain.risk.families.rule import NumberRange, Points, Rule, choices, parameters
from domain.risk.packs import BadRulePack, RulePack, parse_pack

PACKS: Final = files("console.rules").joinpath("packs")
_SUFFIX: Final = ".pack.yaml"
_IN_DOMAIN: Final = {pack.name: pack for pack in (DEFAULT, THREE)}
MAX_FILE_BYTES: Final = 1 << 20
DocumentPath = tuple[str | int, ...]


def pack_names() -> list[str]:
    """Return the names of the packs that the product ships."""
    shipped = [file.name.removesuffix(_SUFFIX) for file in PACKS.iterdir() if file.name.endswith(_SUFFIX)]
    return [*_IN_DOMAIN, *sorted(shipped)]


def load_pack(name_or_file: str) -> RulePack:
    """Return the pack of this name, or the pack in this file. Raises BadRulePack with every error of the file."""
    if name_or_file in _IN_DOMAIN:
        return _IN_DOMAIN[name_or_file]
    if name_or_file in pack_names():
        return parse_file(
            PACKS.joinpath(f"{name_or_file}{_SUFFIX}").read_text(encoding="utf-8"), name_or_file + _SUFFIX
        )
    path = Path(name_or_file)
    if not path.is_file():
        raise BadRulePack(
            f"{name_or_file} is neither a file nor a shipped pack. Cure: name a file, or one of "
            f"{', '.join(pack_names())}"
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadRulePack(f"{path}: {path.stat().st_size} bytes, {MAX_FILE_BYTES} are allowed")
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise BadRulePack(f"{path} cannot be read: {error}. Cure: save it as UTF-8 text") from error
    return parse_file(text, str(path))


def parse_file(text: str, name: str) -> RulePack:
    """Parse a pack from YAML text. Errors call the file `name`. Raises BadRulePack."""
    root, document = _read_yaml(text, name)
    try:
        made = _model().model_validate(document)
    except ValidationError as error:
        lines = [_error_text(each, root, document, name) for each in error.errors()]
        raise BadRulePack("\n".join(dict.fromkeys(lines))) from error
    plain = made.model_dump(exclude_unset=True)
    plain.pop("tuning", None)  # ranges for `fraudcase rules tune`, which are no part of the pack
    try:
        return parse_pack(json.dumps(plain))
    except BadRulePack as error:
        raise BadRulePack(f"{name}:{_line(root, error.where)}: {error}", error.where) from error


# -- YAML, with line numbers ---------------------------------------------------------------------------


def _read_yaml(text: str, name: str) -> tuple[yaml.Node, Any]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise BadRulePack(f"{name}:1: not a rule pack. Cure: begin it with name:, version: and rules:")
        _refuse_repeated(root, name)
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadRulePack(
            f"{name}:{line}: not valid YAML: {error.problem or error.context}. Cure: {_YAML_CURE}"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise BadRulePack(f"{name}:1: not valid YAML: {error}. Cure: {_YAML_CURE}") from error
    finally:
        loader.dispose()


_YAML_CURE: Final = "indent by spaces, one space after a colon, quote texts that hold : or #"


def _refuse_repeated(node: yaml.Node, name: str) -> None:
    """Refuse a mapping with equal keys, of which YAML readers silently keep the last. Raises BadRulePack."""
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            if key.value in seen:
                raise BadRulePack(f"{name}:{key.start_mark.line + 1}: {key.value} is given twice. Cure: remove one")
            seen.add(key.value if isinstance(key.value, Hashable) else None)
            _refuse_repeated(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated(item, name)


def _line(root: yaml.Node, where: DocumentPath) -> int:
    """Return the line of a place in the document, or of the nearest part above it that exists."""
    node, line = root, root.start_mark.line + 1
    for step in where:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == step]
            if not found:
                return line
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            return line
    return line


# -- models, made from the rules' dataclasses -----------------------------------------------------------

_STRICT: Final = ConfigDict(extra="forbid", strict=True)


def _milliseconds(value: Any) -> Any:
    """Convert a duration such as 24h to milliseconds; leave other values unchanged."""
    return duration_ms(value) if isinstance(value, str) else value


def _number_or_text(value: Any) -> Any:
    """Check for a whole number or a text, so that one error is reported instead of one for each alternative."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be a whole number or an expression, not {value!r}")  # noqa: TRY004 - pydantic's way
    return value


@cache
def _model() -> type[BaseModel]:
    kinds: Any = reduce(or_, (_rule_model(family, kind) for family, kind in FAMILIES.items()))
    rule: Any = Annotated[kinds, Field(discriminator="family")]
    return create_model(
        "Pack",
        __config__=_STRICT,
        name=(StrictStr, ...),
        version=(StrictInt, ...),
        flag_at=(Annotated[StrictInt, Field(ge=1, le=1000)], 1),
        lists=(dict[str, list[StrictStr]], {}),
        tuning=(dict[str, list[int | str]], {}),
        rules=(list[rule], ...),
    )


def _rule_model(family: str, kind: type[Rule]) -> type[BaseModel]:
    hints = parameters(kind)
    tag: Any = Literal[family]
    made: dict[str, Any] = {
        each.name: (_annotation(each.name, hints[each.name]), ... if each.default is MISSING else each.default)
        for each in fields(kind)
    }
    return create_model(kind.__name__, __config__=_STRICT, family=(tag, ...), **made)


def _annotation(name: str, hint: Any) -> Any:
    if hint == Points:
        return Annotated[int | str, BeforeValidator(_number_or_text)]
    if get_origin(hint) is tuple:
        return list[StrictStr]
    if get_origin(hint) is Annotated and isinstance(get_args(hint)[1], NumberRange):
        within: NumberRange = get_args(hint)[1]
        number = Annotated[StrictInt, Field(ge=within.least, le=within.most)]
        return Annotated[number, BeforeValidator(_milliseconds)] if name.endswith("_ms") else number
    if hint is str:
        return StrictStr
    return Literal[choices(hint)]


# -- errors -----------------------------------------------------------------------------------------------


def _error_text(error: ErrorDetails, root: yaml.Node, document: Any, name: str) -> str:
    where = _place(error["loc"], document)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).removeprefix(".")
    return f"{name}:{_line(root, where)}: {path or 'the pack'}: {_message(error, where, document)}"


def _place(loc: DocumentPath, document: Any) -> DocumentPath:
    """Convert pydantic's path to one in the file: drop the tag of a family and the alternatives of a union."""
    where: list[str | int] = []
    here = document
    for step in loc:
        is_tag = len(where) == 2 and where[0] == "rules" and isinstance(here, dict) and step == here.get("family")
        is_alternative = isinstance(step, str) and not isinstance(here, dict)
        if is_tag or is_alternative:
            continue
        where.append(step)
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
            if isinstance(step, str):
                break
    return tuple(where)


_FORMS: Final = {True: "write milliseconds, or a duration as 60s, 24h or 28d", False: 'as in 600, or "100 * hour"'}


def _message(error: ErrorDetails, where: DocumentPath, document: Any) -> str:
    key, given, context = (where[-1] if where else ""), error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return f"{key} is missing. Cure: add it"
        case "extra_forbidden":
            known = _known_keys(where, document)
            return f"unknown key. Cure: {suggest_name(str(key), known)}"
        case "union_tag_invalid":
            return f"unknown family {context.get('tag')!r}. Cure: {suggest_name(str(context.get('tag')), FAMILIES)}"
        case "union_tag_not_found":
            return f"family is missing. Cure: add one of {', '.join(FAMILIES)}"
        case "int_type":
            return f"must be a whole number, not {given!r}. Cure: write it without quotes and point"
        case "string_type":
            return f"must be a text, not {given!r}. Cure: put it in quotes"
        case "greater_than_equal":
            return f"must be at least {context['ge']}, not {given}. Cure: raise it"
        case "less_than_equal":
            return f"must be at most {context['le']}, not {given}. Cure: lower it"
        case "literal_error":
            return f"{given!r} is not allowed. Cure: write one of {context['expected']}"
        case "value_error":
            return f"{context['error']}. Cure: {_FORMS[str(key)[-3:] == '_ms']}"
        case _:
            return f"{error['msg']}, not {given!r}"[:300]


def _known_keys(where: DocumentPath, document: Any) -> list[str]:
    if len(where) == 3 and where[0] == "rules":
        family = document["rules"][where[1]]["family"]
        return ["family", *parameters(FAMILIES[family])]
    return ["name", "version", "flag_at", "lists", "rules", "tuning"]
