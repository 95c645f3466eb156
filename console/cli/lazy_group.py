"""A group of commands whose modules are imported only when one of their commands is used.

`fraudcase --help` prints the names and summaries of its table, so it needs none of the modules.
"""

from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """A group made from `areas`: the summaries of commands by module and name.

    Each module has a function `register` that adds its commands to a Typer application.
    """

    areas: ClassVar[dict[str, dict[str, str]]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._modules = {name: module for module, names in self.areas.items() for name in names}
        for names in self.areas.values():
            for name, summary in names.items():
                self.add_command(TyperCommand(name, help=summary))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - as TyperGroup has it
        """Import the module of a command and return the command, or None if there is no such command."""
        module = self._modules.get(cmd_name)
        return None if module is None else load_commands(module)[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the summaries of the table."""
        listed = TyperGroup(
            name=self.name, commands=dict(self.commands), help=self.help, params=self.params,
            rich_markup_mode=self.rich_markup_mode, no_args_is_help=self.no_args_is_help,
        )  # fmt: skip
        listed.format_help(ctx, formatter)


@cache
def load_commands(module: str) -> dict[str, Any]:
    """Import a module and return the commands that it registers, by name."""
    app = typer.Typer(callback=lambda: None, add_completion=False)
    import_module(module).register(app)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(group.commands)
