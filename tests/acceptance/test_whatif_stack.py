"""What-if on the real stack: under the active rules both sides equal the live decisions, from Kafka and from S3."""

import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli.app import app
from console.cli.demo import settle
from console.history.whatif import WhatifRequest
from console.history.whatif_job import WhatifJobs
from console.history.whatif_runs import WhatifRuns
from console.payments.intake import AnswerTracker, open_intake, send_generated
from console.times import now_ms
from console.wiring import control_database, intake_parts, kafka_logs
from domain.risk.default_packs import DEFAULT
from domain.risk.families.velocity import Velocity
from generator.traffic import GeneratedPayment, Traffic, TrafficOptions
from infra.settings import Settings
from projections.replay.whatif import WhatifPeriod
from tests.support.replays import replay_system

PAYMENTS = 3_000
"""Dated within two and a half minutes: the risk job refuses payments dated more than five minutes ahead."""
STRICTER = replace(
    DEFAULT,
    name="stricter",
    rules=tuple(replace(rule, at_least=9) if isinstance(rule, Velocity) else rule for rule in DEFAULT.rules),
)


def of_whatif(made: GeneratedPayment) -> GeneratedPayment:
    """Return the payment with an account that no other test has a case of."""
    account = f"whatif-{made.transaction['account_id']}"
    return made._replace(transaction={**made.transaction, "account_id": account})


def said(command: CliRunner, *arguments: str) -> dict[str, Any]:
    result = command.invoke(app, ["whatif", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_whatif_of_other_rules(
    settings: Settings, command: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = replay_system(settings, "kafka").document
    begin_ms = time.time_ns() // 1_000_000  # later than all payments of other tests
    stretch = ("--from", str(begin_ms))
    answers, (intake, sent) = AnswerTracker(kafka_logs(settings)), open_intake(intake_parts(settings))
    options = TrafficOptions(seed=31, accounts=2_000, start_ms=begin_ms, per_second=20, velocity_share=0.005)
    send_generated(intake, map(of_whatif, islice(Traffic(options), PAYMENTS)), None, lambda _: None)
    intake.flush()
    answers.wait_for(sent.places)
    after = settle(settings).document
    recorded = {name: after[name] - before[name] for name in ("cases_opened", "cases_escalated", "flags")}  # type: ignore[operator]
    same = said(command, "--rules", "default", *stretch)
    assert same["payments"] == PAYMENTS
    assert same["changed"] == []
    assert same["cases"]["baseline"] == same["cases"]["new"] > 5
    assert same["cases"]["baseline"] == recorded["cases_opened"]
    assert same["cases"]["escalations"]["baseline"] == recorded["cases_escalated"]
    assert same["alerts"]["baseline"] >= recorded["flags"]

    file, html, out = (tmp_path / name for name in ("stricter.json", "report.html", "all.json"))
    file.write_text(STRICTER.canonical, encoding="utf-8")
    found = said(command, "--rules", str(file), *stretch, "--html", str(html), "--out", str(out))
    assert found["cases"]["lost"] > 0
    assert json.loads(out.read_text()) == found
    assert "<script" not in html.read_text()
    archived = said(command, "--rules", str(file), *stretch, "--source", "s3")
    assert {**archived, "source": "kafka", "run_id": ""} == {**found, "run_id": ""}

    runs, jobs = WhatifRuns(control_database(settings), now_ms), WhatifJobs(settings.variables())
    run_id = runs.begin(STRICTER, WhatifRequest("kafka", WhatifPeriod(begin_ms)), "rui", alone=True)
    jobs.start(run_id)
    deadline = time.monotonic() + 60
    while (row := runs.run(run_id)) is not None and row.state == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    jobs.stop()
    assert row is not None
    assert (row.state, row.error, row.payments) == ("done", None, found["payments"])

    monkeypatch.setenv("FRAUDCASE_RULES_NEED_WHATIF", "1")
    monkeypatch.setenv("FRAUDCASE_RULES_WHATIF_PAYMENTS", str(found["payments"]))
    twin = tmp_path / "twin.json"
    twin.write_text(replace(STRICTER, version=9).canonical, encoding="utf-8")
    for each in (file, twin):
        assert command.invoke(app, ["rules", "draft", str(each), "--actor", "rui"]).exit_code == 0
    assert command.invoke(app, ["rules", "approve", "stricter@3", "--actor", "lea"]).exit_code == 0
    refused = command.invoke(app, ["rules", "approve", "stricter@9", "--actor", "lea"])
    assert refused.exit_code == 1
    assert "no what-if of at least" in refused.output
