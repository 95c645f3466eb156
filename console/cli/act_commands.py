"""Subcommands of `fraudcase case act`: one for each act of the catalogue, with an option for each of its fields."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from console.cases.act_catalog import ACTS, AnalystAct
from console.cases.act_fields import FIELDS, REQUIRED
from console.cli.options import AsJson, parse_instant

CaseId = Annotated[str, typer.Argument(help="id of the case")]
Actor = Annotated[str, typer.Option("--actor", help="name of the person who acts")]
SeenVersion = Annotated[
    int | None, typer.Option("--seen", help="version of the case that the actor saw; default: the stored version")
]
Run = Callable[[AnalystAct, str, str, dict[str, str | None], int | None, bool], None]
"""Function of an act, a case id, an actor, the field values as typed, the version seen, and True for JSON output."""


def register_acts(case: typer.Typer, run: Run) -> None:
    """Add `act` with a subcommand for each act, and the acts that are also commands of their own."""
    group = typer.Typer(no_args_is_help=True, help="Act on a case. Exit code 1 if the act is rejected.")
    for act in ACTS.values():
        text = f"{act.summary}\n\nExit code 1 if the act is rejected."
        group.command(act.name, help=text)(make_subcommand(act, run))
        if act.is_direct_command:
            case.command(act.name, help=text)(make_subcommand(act, run))
    case.add_typer(group, name="act")


def make_subcommand(act: AnalystAct, run: Run) -> Callable[..., None]:
    """Return the function of a subcommand, with the signature that Typer reads the options from."""

    def subcommand(
        case_id: str, actor: str, seen: int | None = None, as_json: bool = False, **values: str | None
    ) -> None:
        run(act, case_id, actor, values, seen, as_json)

    annotations = {"case_id": CaseId, "actor": Actor, **_option_types(act), "seen": SeenVersion, "as_json": AsJson}
    defaults = {name: FIELDS[name].default for name in act.fields if FIELDS[name].default is not REQUIRED}
    defaults |= {"seen": None, "as_json": False}
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=defaults.get(name, inspect.Parameter.empty),
        )
        for name, annotation in annotations.items()
    ]
    subcommand.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    subcommand.__annotations__ = annotations
    return subcommand


def _option_types(act: AnalystAct) -> dict[str, Any]:
    fields = {name: FIELDS[name] for name in act.fields if FIELDS[name].option}
    return {
        name: Annotated[
            str if field.default is REQUIRED else str | None, typer.Option(f"--{field.option}", help=field.help)
        ]
        for name, field in fields.items()
    }


def parse_fields(values: dict[str, str | None], find_account: Callable[[str], str]) -> dict[str, Any]:
    """Return the fields of a command from the values of its options. `find_account` maps a case id to its account."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        fields[name] = parse_instant(value) if name == "until_ms" else value
        if name in ("into_case_id", "other_case_id") and value is not None:
            fields[name.replace("case", "account")] = find_account(value)
    return fields
