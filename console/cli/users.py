"""`fraudcase users`: the people who may sign in to the console."""

import json
import sys
from typing import Annotated, Any

import typer

from console.cli.options import AsJson, read_settings
from console.cli.output import fail
from console.people.accounts import UserAccountError
from console.people.roles import Role
from console.wiring import people

ACTOR = "command line"
"""Actor of changes made here: commands on this machine need no sign-in."""
Name = Annotated[str, typer.Argument(help="user name")]
Roles = Annotated[list[Role], typer.Option("--role", help="role of the user; repeat for several")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    users = typer.Typer(no_args_is_help=True, help="Manage the people who may sign in to the console.")
    users.command("list")(list_users)
    for name, command in (("add", add), ("roles", roles), ("reset-password", reset_password), ("token", token)):
        users.command(name)(command)
    users.command("disable")(disable)
    users.command("enable")(enable)
    app.add_typer(users, name="users")


def list_users(as_json: AsJson = False) -> None:
    """List all users with their roles."""
    found: list[dict[str, Any]] = [
        {"name": row.name, "roles": row.roles.split(), "is_disabled": row.is_disabled, "by": row.issuer or "password"}
        for row in people(read_settings()).everybody()
    ]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for each in found:
        state = "disabled" if each["is_disabled"] else ""
        sys.stdout.write(f"{each['name']:<20} {' '.join(each['roles']):<30} {each['by']} {state}".rstrip() + "\n")


def add(name: Name, role: Roles) -> None:
    """Create a user and print their random password, which is shown only once."""
    try:
        password = people(read_settings()).add(name, frozenset(role), ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error
    sys.stdout.write(password + "\n")


def roles(name: Name, role: Roles) -> None:
    """Replace the roles of a user."""
    try:
        people(read_settings()).set_roles(name, frozenset(role), ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error


def reset_password(name: Name) -> None:
    """Set and print a new random password, which is shown only once. The user's sessions and tokens end."""
    try:
        password = people(read_settings()).set_password(name, ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error
    sys.stdout.write(password + "\n")


def token(
    name: Name,
    label: Annotated[str, typer.Option("--label", help="name of the machine that will use the token")],
    days: Annotated[int, typer.Option(min=1, max=366, help="number of days until the token expires")] = 90,
) -> None:
    """Create an API token with the roles of a user and print it, once. Send it as Authorization: Bearer TOKEN."""
    try:
        made = people(read_settings()).add_token(name, label, days, ACTOR)
    except UserAccountError as error:
        raise fail(str(error)) from error
    sys.stdout.write(made + "\n")


def disable(name: Name) -> None:
    """Block a user from signing in. The user's sessions and tokens end."""
    _switch(name, is_disabled=True)


def enable(name: Name) -> None:
    """Allow a disabled user to sign in again."""
    _switch(name, is_disabled=False)


def _switch(name: str, *, is_disabled: bool) -> None:
    try:
        people(read_settings()).set_disabled(name, ACTOR, is_disabled=is_disabled)
    except UserAccountError as error:
        raise fail(str(error)) from error
