"""Reference of the command line in Markdown, made from the commands' own help.

`python -m console.cli.reference > docs/commands.md` renews the committed page.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from inspect import cleandoc
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperGroup

PROGRAM: Final = "fraudcase"
INTRODUCTION: Final = """
# Commands

Made from the commands' own help by `python -m console.cli.reference > docs/commands.md`; do not edit this page.

Commands print figures for people to standard output; with `--json` they print JSON. Messages, progress and errors go
to standard error. Unless a command says otherwise, its exit code is 0 on success, 1 if it failed, and 2 if its
arguments are wrong. Settings are `FRAUDCASE_…` variables (`infra/settings.py` lists them).
"""
PAGES: Final = {
    "generate": "generator.md",
    "replay": "replay.md",
    "digest": "replay.md",
    "rebuild": "rebuild.md",
    "views": "rebuild.md",
    "case": "cases.md",
    "labels": "scoreboard.md",
    "rules": "rules/README.md",
    "rules tune": "scoreboard.md",
    "control": "console.md",
    "engine": "engines.md",
    "score": "scoreboard.md",
    "audit": "evidence.md",
    "export": "evidence.md",
    "verify": "evidence.md",
    "explain": "rules/README.md",
    "bench": "benchmark.md",
    "users": "console.md",
    "erase": "erasure.md",
    "subject": "erasure.md",
    "canary": "erasure.md",
    "whatif": "whatif.md",
}
"""Page in docs/ with more about a command, or about all commands of a group."""


class CommandHelp(NamedTuple):
    """One command, with its name after the program's."""

    name: str
    help: str
    params: list[Any]

    @property
    def summary(self) -> str:
        """Return the first paragraph of the help on one line."""
        return _paragraphs(self.help)[0]

    @property
    def anchor(self) -> str:
        """Return the fragment that the renderer makes of the command's heading."""
        return f"{PROGRAM} {self.name}".replace(" ", "-")

    @property
    def page(self) -> str | None:
        """Return the page with more about the command, or None."""
        return PAGES.get(self.name) or PAGES.get(self.name.partition(" ")[0])


def all_commands(group: TyperGroup, prefix: str = "") -> Iterator[CommandHelp]:
    """Yield every command that is not hidden, subcommands too, in the order of the program's help."""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command: Any = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        path = f"{prefix}{name}"
        if isinstance(command, TyperGroup):
            yield from all_commands(command, f"{path} ")
        else:
            yield CommandHelp(path, command.help or "", [each for each in command.params if not each.hidden])


def reference(group: TyperGroup) -> str:
    """Return the page: an index, then each command with its usage, arguments and options."""
    commands = list(all_commands(group))
    lines = [INTRODUCTION.strip(), "", "| command | what it does | more |", "|---|---|---|"]
    for each in commands:
        more = f"[{each.page}]({each.page})" if each.page else ""
        lines.append(f"| [`{each.name}`](#{each.anchor}) | {_cell(each.summary)} | {more} |")
    for each in commands:
        lines += ["", *_section(each)]
    return "\n".join(lines) + "\n"


def _section(command: CommandHelp) -> Iterator[str]:
    yield f"## {PROGRAM} {command.name}"
    for paragraph in _paragraphs(command.help):
        yield from ("", paragraph)
    yield from ("", "```", _usage(command), "```")
    if not command.params:
        return
    yield from ("", "| argument or option | default | meaning |", "|---|---|---|")
    for param in command.params:
        yield f"| {_names(param)} | {_default(param)} | {_cell(param.help or '')} |"


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n")]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _value(param: Any) -> str:
    """Return the placeholder of a parameter's value."""
    name = (param.metavar or param.name.replace("_", "-")).upper().removesuffix("...")
    if not _is_argument(param) and not param.metavar:
        name = param.opts[0].removeprefix("--").upper()
    return f"{name}..." if param.nargs == -1 else name


def _option(param: Any) -> str:
    names = "/".join([*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} {_value(param)}"


def _usage(command: CommandHelp) -> str:
    parts = [PROGRAM, command.name]
    parts += [_value(each) if each.required else f"[{_value(each)}]" for each in command.params if _is_argument(each)]
    options = [each for each in command.params if not _is_argument(each)]
    parts += [_option(each) for each in options if each.required]
    return " ".join([*parts, *(["[OPTIONS]"] if any(not each.required for each in options) else [])])


def _names(param: Any) -> str:
    repeated = ", repeatable" if param.multiple else ""
    return f"`{_value(param) if _is_argument(param) else _option(param)}`{repeated}"


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if not _is_argument(param) and param.is_flag:
        names = param.opts if param.default else param.secondary_opts
        return f"`{names[0]}`" if names else ""
    value = param.default.value if isinstance(param.default, Enum) else param.default
    return "" if value in (None, "", ()) else f"`{value}`"


def main() -> None:
    """Print the page."""
    from console.cli.app import app  # the application is complete only once its module has run

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    sys.stdout.write(reference(group))


if __name__ == "__main__":
    main()
