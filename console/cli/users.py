"""`fraudcase users`: who may sign in to the console."""

import json
import sys
from typing import Annotated, Any

import typer

from console.cli.options import AsJson
from console.cli.output import fail
from console.people.accounts import UserAccountError
from console.people.roles import Role
from console.wiring import people
from infra.settings import Settings

ACTOR = "command line"
"""Whoever may run commands here owns the store: the log says that much."""
Name = Annotated[str, typer.Argument(help="what they sign in as")]
Roles = Annotated[list[Role], typer.Option("--role", help="what they are; several times for several roles")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    users = typer.Typer(no_args_is_help=True, help="People who may sign in to the console.")
    users.command("list")(list_users)
    for name, command in (("add", add), ("roles", roles), ("reset-password", reset_password), ("token", token)):
        users.command(name)(command)
    users.command("disable")(disable)
    users.command("enable")(enable)
    app.add_typer(users, name="users")


def list_users(as_json: AsJson = False) -> None:
    """Everybody, with their roles."""
    found: list[dict[str, Any]] = [
        {"name": row.name, "roles": row.roles.split(), "is_disabled": row.is_disabled, "by": row.issuer or "password"}
        for row in people(Settings()).everybody()
    ]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for each in found:
        state = "disabled" if each["is_disabled"] else ""
        sys.stdout.write(f"{each['name']:<20} {' '.join(each['roles']):<30} {each['by']} {state}".rstrip() + "\n")


def add(name: Name, role: Roles) -> None:
    """Let somebody in; their random password is printed once."""
    try:
        password = people(Settings()).add(name, frozenset(role), ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error
    sys.stdout.write(password + "\n")


def roles(name: Name, role: Roles) -> None:
    """Give somebody other roles than they have."""
    try:
        people(Settings()).set_roles(name, frozenset(role), ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error


def reset_password(name: Name) -> None:
    """Give somebody another random password, printed once; their sessions and tokens end."""
    try:
        password = people(Settings()).set_password(name, ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error
    sys.stdout.write(password + "\n")


def token(
    name: Name,
    label: Annotated[str, typer.Option("--label", help="which machine it is for")],
    days: Annotated[int, typer.Option(min=1, max=366, help="how long it opens the door")] = 90,
) -> None:
    """Print a token for a machine, once: it comes in with this person's roles (Authorization: Bearer …)."""
    try:
        made = people(Settings()).add_token(name, label, days, ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error
    sys.stdout.write(made + "\n")


def disable(name: Name) -> None:
    """Let somebody in no more; their sessions and tokens end."""
    _switch(name, is_disabled=True)


def enable(name: Name) -> None:
    """Let somebody in again."""
    _switch(name, is_disabled=False)


def _switch(name: str, *, is_disabled: bool) -> None:
    try:
        people(Settings()).set_disabled(name, ACTOR, is_disabled=is_disabled)
    except UserAccountError as error:
        raise fail(str(error)) from error
