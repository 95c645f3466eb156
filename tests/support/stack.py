"""Ports and command line of the real stack that the acceptance tests share."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli.app import app
from infra.settings import Settings

PORTS: dict[str, Any] = {
    "kafka_port": 20092, "kafka_controller_port": 20093, "registry_port": 20081, "dynamodb_port": 20000,
    "s3_port": 20090, "flink_port": 20082, "metrics_port": 20400, "console_port": 20080,
}  # fmt: skip


def command_line(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Return the command line, with the settings of a test system."""
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    return CliRunner()


def run_json(command: CliRunner, *arguments: str, code: int = 0) -> Any:
    result = command.invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else None
