"""The command line's help, its reference page, and `fraudcase --version`."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from console.cli.app import AREAS, app
from console.cli.lazy_group import load_commands
from console.cli.reference import PAGES, CommandHelp, all_commands, reference
from tests.support.house import begins_with_verb

DOCS = Path(__file__).parents[2] / "docs"
GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = list(all_commands(GROUP))


def test_reference_page_is_current() -> None:
    assert isinstance(GROUP, TyperGroup)
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == reference(GROUP), (
        "docs/commands.md is out of date. Renew it: python -m console.cli.reference > docs/commands.md"
    )


def test_reference_links_to_pages_that_exist() -> None:
    names = {each.name for each in COMMANDS}
    for name, page in PAGES.items():
        assert (DOCS / page).is_file(), page
        assert any(each == name or each.startswith(f"{name} ") for each in names), name


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.name)
def test_help_says_what_the_command_does_and_what_each_option_means(command: CommandHelp) -> None:
    assert begins_with_verb(command.summary), command.summary
    assert command.summary.endswith("."), command.summary
    for param in command.params:
        assert param.help, f"{param.name} has no help"
        assert not param.help.endswith("."), f"{param.name}: {param.help}"


def test_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"fraudcase {version('fraudcase')}\n")


def test_summaries_of_the_program_are_those_of_its_commands() -> None:
    for module, names in AREAS.items():
        commands = load_commands(module)
        assert list(names) == [name for name in names if name in commands], module
        for name, summary in names.items():
            assert " ".join((commands[name].help or "").split()).startswith(summary), name
        assert set(names) == set(commands), module


def test_help_of_the_program_imports_no_command() -> None:
    code = "import sys; from console.cli.app import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "whatif" in said
    assert not [name for name in said.split() if name.partition(".")[0] in ("boto3", "sqlalchemy", "infra", "pyarrow")]


def test_status_prints_whole_log_paths_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("long-" * 30)
    monkeypatch.setenv("FRAUDCASE_HOME", str(home))
    result = CliRunner().invoke(app, ["status"])
    lines = [line.split("│")[1:-1] for line in result.stdout.splitlines() if line.startswith("│")]
    path = "".join(line[-1].strip() for line in lines)
    assert str(home / "logs" / "kafka.log") in path
