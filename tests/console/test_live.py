"""Live figures are counted by the time of their records and are bounded; the stream respects each reader's
permissions.
"""

import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from console.monitor import figures as live
from console.monitor.feed import LiveFeed, LiveFeedSources
from console.monitor.figures import LiveFigures
from console.monitor.health import STILL_S, MonitoredGroup
from console.people.roles import Role
from console.web.pages.live_updates import _PageUpdates
from projections.logs.kafka_logs import KafkaLogs
from schemas.topics import Topics
from tests.support.desk import opened

NOW = 1_750_000_000_000


def payment(number: int, account: str = "a", **changed: Any) -> dict[str, Any]:
    made = {
        "account_id": account, "transaction_id": f"tx-{number}", "event_time": NOW, "amount_minor": 100,
        "currency": "EUR", "merchant_id": "m", "country": "DE", "channel": "POS", "payment_method": "CARD",
    }  # fmt: skip
    return {**made, **changed}


def test_figures_are_sums_of_the_records() -> None:
    figures = LiveFigures()
    figures.scored([payment(1), payment(2), payment(3, "b", country=None)], NOW - 5_000)
    figures.scored([payment(4)], NOW - 2_000)
    figures.flagged({**payment(4), "score": 700, "latitude": None, "longitude": None, "typology": "t"}, NOW - 2_000)
    said = figures.snapshot(NOW, {})
    assert said["payments_per_s"] == 0.4
    assert said["flags_per_min"] == 1
    assert said["flagged_percent"] == 25
    assert said["accounts"] == [{"key": "a", "payments": 3, "flags": 1}, {"key": "b", "payments": 1, "flags": 0}]
    assert said["regions"] == [{"key": "DE", "payments": 3, "flags": 1}, {"key": "unknown", "payments": 1, "flags": 0}]
    assert (said["series"]["payments"][-5], said["series"]["payments"][-2]) == (3, 1)
    assert said["last_ms"] == NOW - 2_000


def test_records_older_than_five_minutes_do_not_count() -> None:
    figures = LiveFigures()
    figures.scored([payment(1)], NOW - 400_000)
    said = figures.snapshot(NOW, {})
    assert sum(said["series"]["payments"]) == 0
    assert said["regions"] == []


def test_keys_accounts_and_payments_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_KEYS", 2)
    monkeypatch.setattr(live, "MAX_ACCOUNTS", 2)
    figures = LiveFigures()
    for number, account in enumerate("abcd"):
        figures.scored([payment(number, account)], NOW)
    rows = {row["key"]: row["payments"] for row in figures.snapshot(NOW, {})["accounts"]}
    assert rows == {"a": 1, "b": 1, "others": 2}
    assert figures.payments("a", ["tx-0"]) == {}, "the account with the oldest payment is evicted"
    assert list(figures.payments("d", ["tx-3", "tx-9"])) == ["tx-3"]


@pytest.mark.parametrize(
    ("lag", "still_s", "state"),
    [
        pytest.param(None, 0, "slow", id="unknown position"),
        pytest.param(0, 10 * STILL_S, "well", id="nothing to read"),
        pytest.param(50, 1, "well", id="a little behind"),
        pytest.param(50_000, 1, "slow", id="far behind, and moving"),
        pytest.param(5, STILL_S + 1, "bad", id="something to read, and not moving"),
    ],
)
def test_state_of_a_reader(lag: int | None, still_s: float, state: str) -> None:
    reader = MonitoredGroup("views", "cases.events", None, lag=lag, moved_s=1_000.0)
    assert reader.state(1_000.0 + still_s)[0] == state


@pytest.mark.parametrize(
    ("role", "told"), [(Role.ANALYST, 1), (Role.AUDITOR, 1), (Role.ADMIN, 0), (Role.RULE_AUTHOR, 0)]
)
def test_only_readers_of_cases_get_the_changed_cases(tmp_path: Path, role: Role, told: int) -> None:
    with opened(tmp_path) as desk:
        state = SimpleNamespace(person=desk.person(role))
        news = _PageUpdates(cast(Request, SimpleNamespace(state=state, app=desk.app)))
        case = desk.case()
        found = news.cases()
        assert len(found) == told
        assert all(case in text for text in found)
        assert news.cases() == [], "once"


def test_pages_work_without_recent_payments_while_the_counting_process_is_down() -> None:
    feed = LiveFeed(
        LiveFeedSources(logs=KafkaLogs(bootstrap="", registry_url="", topics=Topics()), view_metrics_url="")
    )
    ours, theirs = multiprocessing.Pipe()
    feed._pipe = ours
    theirs.close()
    assert feed.payments("a", ["tx-1"]) == {}
