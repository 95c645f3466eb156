"""Rule packs in the pages: drafted, tried, approved by a second person and activated, only with the permission for
each.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from console.display.whatif_report import report
from console.display.whatif_view import step_of
from console.history.whatif import WhatifRequest, document
from console.history.whatif_job import carry_out
from console.history.whatif_runs import SILENT_MS, WhatifRunError
from console.people.roles import Role
from console.rules.diff import differences
from console.rules.store import RulePackActionError, RulePackStore, WhatifRequirement
from domain.risk.default_packs import DEFAULT, THREE
from domain.risk.families.velocity import Velocity
from domain.risk.packs import RulePack
from generator.traffic import START_MS
from projections.replay.sources import LogGap
from projections.replay.whatif import WhatifPeriod
from tests.support.desk import Desk, opened
from tests.support.logs import MemoryLog
from tests.support.whatif import burst, pack, run

STRICT = replace(THREE, name="strict")
ASKED = WhatifRequest("kafka", WhatifPeriod())
RA, LEAD, ADMIN, ANALYST, AUDITOR = Role.RULE_AUTHOR, Role.LEAD, Role.ADMIN, Role.ANALYST, Role.AUDITOR


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        made.control.first(DEFAULT)
        yield made


def text_of(made: RulePack) -> str:
    return yaml.safe_dump(json.loads(made.canonical))


def drafted(desk: Desk, made: RulePack = STRICT, name: str = "rui") -> str:
    answer = desk.signed_in(RA, name=name).post("/rules", data={"text": text_of(made)})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/rules/{made.pack_id}")
    return made.pack_id


def tried(desk: Desk, made: RulePack = STRICT) -> str:
    """Run a what-if of a pack on twelve payments in three seconds."""
    log = MemoryLog()
    log.activate(pack(), START_MS)
    for number, account in enumerate("abcd"):
        burst(log, account, START_MS + number * 86_400_000, 3)
    run_id = desk.runs.begin(made, ASKED, "rui")
    carry_out(desk.runs, run_id, lambda new, asked, _: document(run(log, new, asked.period), asked))
    return run_id


def state(desk: Desk, name: str = "strict") -> str:
    return desk.control.pack(name).state


def act(client: TestClient, what: str, made: RulePack = STRICT) -> Any:
    return client.post(f"/rules/{made.pack_id}/{what}")


def test_two_people_take_a_pack_from_draft_to_active(desk: Desk) -> None:
    drafted(desk)
    rui, rob = desk.signed_in(RA, name="rui"), desk.signed_in(RA, name="rob")
    assert act(rui, "approve").status_code == 409, "the author cannot approve a pack"
    assert "another person must approve it" in act(rui, "approve").text
    assert act(rob, "activate").status_code == 409, "an unapproved pack cannot be activated"
    assert act(rob, "approve").headers["location"] == f"/rules/{STRICT.pack_id}"
    assert act(rob, "activate").status_code == 303
    assert (state(desk), state(desk, "default")) == ("active", "retired")
    (record,) = desk.rules.records  # type: ignore[attr-defined]
    assert (record.pack_id, record.activated_by, record.mode) == (STRICT.pack_id, "rob", "active")
    assert [entry.action for entry in desk.people.door_log()][:2] == ["rules-activate", "rules-approve"]


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        pytest.param(RA, {"draft", "approve", "activate", "shadow", "retire", "whatif"}, id="rule author"),
        pytest.param(LEAD, {"approve", "activate", "retire", "whatif"}, id="lead"),
        pytest.param(ADMIN, {"approve", "activate", "retire", "whatif"}, id="admin"),
        pytest.param(ANALYST, set(), id="analyst"),
        pytest.param(AUDITOR, set(), id="auditor"),
    ],
)
def test_each_role_has_the_acts_and_buttons_of_the_table(desk: Desk, role: Role, allowed: set[str]) -> None:
    client = desk.signed_in(role, name="somebody")
    drafted(desk)
    shown = client.get(f"/rules/{STRICT.pack_id}").text
    for what in ("approve", "retire"):
        assert (f'data-dialog="{what}"' in shown) == (what in allowed), what
    assert (f'action="/rules/{STRICT.pack_id}/shadow"' in shown) == ("shadow" in allowed)
    assert ("New draft" in client.get("/rules").text) == ("draft" in allowed)
    found = {"draft": client.post("/rules", data={"text": text_of(replace(STRICT, version=2))}).status_code}
    for what in ("whatif", "shadow", "approve", "activate", "retire"):
        found[what] = act(client, what).status_code
    assert found.pop("retire") == ((409 if "activate" in allowed else 303) if "retire" in allowed else 403)
    assert found == {what: 303 if what in allowed else 403 for what in found}
    assert state(desk, "strict@1") == ("active" if "activate" in allowed else "draft")


def test_write_without_the_page_token_is_refused(desk: Desk) -> None:
    drafted(desk)
    client = desk.signed_in(RA, name="rob")
    for headers in ({"X-CSRF-Token": ""}, {"Origin": "https://evil.example"}):
        for what in ("approve", "activate", "shadow", "retire", "whatif"):
            assert client.post(f"/rules/{STRICT.pack_id}/{what}", headers=headers).status_code == 403, what
        assert client.post("/rules", data={"text": text_of(THREE)}, headers=headers).status_code == 403
    assert [row.state for row in desk.control.packs()] == ["active", "draft"]
    assert desk.asked == []


def test_errors_give_file_line_and_cure_and_keep_the_text(desk: Desk) -> None:
    client, bad = desk.signed_in(RA), text_of(STRICT).replace("family: velocity", "family: velocitee")
    answer = client.post("/rules", files={"file": ("mine.yaml", bad.encode())})
    assert answer.status_code == 422
    line = bad.splitlines().index("- at_least: 5") + 1
    assert f"mine.yaml:{line}: rules[0]: unknown family" in answer.text
    assert "Cure:" in answer.text
    assert "velocitee" in answer.text.split("<textarea")[1]
    assert "draft.yaml:1: not a rule pack" in client.post("/rules", data={"text": "[]"}).text
    assert "save it as UTF-8" in client.post("/rules", files={"file": ("x.yaml", b"\xff\xfe\x00")}).text
    other = text_of(replace(DEFAULT, rules=THREE.rules))
    assert "has a version 3 already" in client.post("/rules", data={"text": other}).text


def test_file_that_expands_to_gigabytes_is_refused(desk: Desk) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*{'a' if not n else f'b{n - 1}'}, *a]\n" for n in range(40))
    answer = desk.signed_in(RA).post("/rules", data={"text": f"name: x\nversion: 1\n{bomb}"})
    assert answer.status_code == 422
    assert "draft.yaml:4: *a refers to another part" in answer.text


def test_next_version_starts_from_the_last_one(desk: Desk) -> None:
    drafted(desk)
    shown = desk.signed_in(RA).get(f"/rules/draft?from={STRICT.pack_id}").text
    assert "version: 2" in shown
    assert "name: strict" in shown


def test_pack_shows_its_differences_from_the_active_one(desk: Desk) -> None:
    velocity = Velocity(name="velocity", typology="rapid_spending", points=600, window_ms=120_000, at_least=9)
    made = replace(DEFAULT, version=9, flag_at=450, rules=(velocity, *DEFAULT.rules[1:-1]))
    drafted(desk, made)
    shown = desk.signed_in(ANALYST).get(f"/rules/{made.pack_id}").text
    for before, after in (("400", "450"), ("1 min", "2 min"), ("5", "9")):
        assert f'<span class="before">{before}</span>' in shown
        assert f'<span class="after">{after}</span>' in shown
    assert f'{DEFAULT.rules[-1].name.replace("_", " ")}</b> <span class="status d-removed">' in shown


def test_differences_are_by_rule_and_setting() -> None:
    before: dict[str, Any] = {"flag_at": 1, "lists": {"l": ["a", "b"]},
                              "rules": [{"name": "x", "points": 1}, {"name": "y", "points": 2}]}  # fmt: skip
    assert differences(before, before) == []
    after = {"flag_at": 1, "lists": {"l": ["b", "c"], "m": ["z"]},
             "rules": [{"name": "y", "points": 3}, {"name": "x", "points": 1}, {"name": "n", "points": 5}]}  # fmt: skip
    found = [(part.name, part.what, [tuple(field) for field in part.fields]) for part in differences(before, after)]
    assert found == [
        ("l", "changed", [("entries", 2, 2), ("removed", "a", None), ("added", None, "c")]),
        ("m", "added", [("entries", 0, 1), ("added", None, "z")]),
        ("the order of the rules", "changed", [("order", "x, y", "y, x")]),
        ("y", "changed", [("points", 2, 3)]),
        ("n", "added", [("points", None, 5)]),
    ]


def test_unreachable_logs_are_reported_and_a_repeated_act_continues(desk: Desk) -> None:
    drafted(desk)
    client = desk.signed_in(RA, name="rob")
    act(client, "approve")
    desk.rules.away = OSError("no broker")  # type: ignore[attr-defined]
    answer = act(client, "activate")
    assert answer.status_code == 409
    assert "no broker" in answer.text
    assert state(desk) == "approved"
    desk.rules.away = None  # type: ignore[attr-defined]
    assert act(client, "activate").status_code == 303
    assert state(desk) == "active"


# -- what-ifs ------------------------------------------------------------------------------------------------


def test_an_approval_is_recorded_with_its_what_if(desk: Desk) -> None:
    drafted(desk)
    run_id = tried(desk)
    client = desk.signed_in(LEAD, name="lea")
    assert act(client, "approve").status_code == 303
    entry = desk.control.history(STRICT.pack_id)[-1]
    assert (entry.action, json.loads(entry.detail)) == ("approved", {"whatif_run": run_id})
    assert f"/whatif/{run_id}" in client.get(f"/rules/{STRICT.pack_id}").text
    assert "approved by this" in client.get(f"/rules/{STRICT.pack_id}/whatif/{run_id}").text


@pytest.mark.parametrize(
    ("needed", "is_enough"),
    [
        pytest.param(WhatifRequirement(12, 0), True, id="as many payments"),
        pytest.param(WhatifRequirement(13, 0), False, id="too few payments"),
        pytest.param(WhatifRequirement(1, 3), True, id="as many days"),
        pytest.param(WhatifRequirement(1, 4), False, id="too few days"),
    ],
)
def test_pack_is_not_approved_without_a_required_what_if(
    desk: Desk, needed: WhatifRequirement, is_enough: bool
) -> None:
    store = RulePackStore(desk.engine, desk.clock, needed)
    store.draft(STRICT, "rui")
    store.draft(replace(STRICT, version=2), "rui")
    with pytest.raises(
        RulePackActionError, match=r"no what-if of at least .* Cure: run fraudcase whatif --rules strict@1"
    ):
        store.approve("strict@1", "lea")
    failing = desk.runs.begin(STRICT, ASKED, "rui")
    desk.runs.failed(failing, "no broker")
    run_id = tried(desk)
    if is_enough:
        store.approve("strict@1", "lea")
        assert json.loads(store.history(STRICT.pack_id)[-1].detail) == {"whatif_run": run_id}
    else:
        with pytest.raises(RulePackActionError, match="no what-if"):
            store.approve("strict@1", "lea")
    with pytest.raises(RulePackActionError, match="no what-if"):
        store.approve("strict@2", "lea")  # a run of another pack does not count


def test_what_if_is_requested_by_page_run_by_a_worker_and_shown(desk: Desk) -> None:
    drafted(desk)
    client, path = desk.signed_in(LEAD, name="lea"), f"/rules/{STRICT.pack_id}/whatif"
    form = {"source": "s3", "since": "2026-01-01T00:00", "until": "2026-02-01T00:00", "minutes": "7"}
    assert client.post(path, data=form).headers["location"] == path
    (run_id,) = desk.asked
    assert desk.runs.asked(run_id) == (
        STRICT,
        WhatifRequest("s3", WhatifPeriod(START_MS, START_MS + 31 * 86_400_000), 7),
    )
    desk.runs.progress_writer(run_id)(500, 2_000)
    assert "500 of 2,000 records" in client.get(path).text
    assert "one at a time" in client.post(path, data=form).text
    desk.clock.now_ms += SILENT_MS + 1
    assert "The worker ended without a report." in client.get(path).text
    assert client.post(path, data=form).status_code == 303
    assert client.get(f"{path}/{run_id}").status_code == 404, "the run has no result yet"


def test_invalid_what_if_request_gives_the_reason(desk: Desk) -> None:
    drafted(desk)
    client = desk.signed_in(LEAD)
    asked: list[tuple[dict[str, str], str]] = [
        ({"since": "2026-02-01T00:00", "until": "2026-01-01T00:00"}, "not before the second"),
        ({"since": "yesterday"}, "since"), ({"source": "tape"}, "source"), ({"minutes": "-1"}, "minutes"),
    ]  # fmt: skip
    for form, said in asked:
        answer = client.post(f"/rules/{STRICT.pack_id}/whatif", data=form)
        assert answer.status_code == 409
        assert said in answer.text.split('role="alert"')[1].split("</p>")[0]
    assert desk.asked == []


def test_what_if_result_is_shown_and_downloadable(desk: Desk) -> None:
    drafted(desk)
    run_id = tried(desk)
    client, path = desk.signed_in(AUDITOR), f"/rules/{STRICT.pack_id}/whatif"
    assert "4 no longer found" in client.get(f"{path}/{run_id}").text.replace("<b>", "").replace("</b>", "")
    found = client.get(f"{path}/{run_id}/report?as=json").json()
    assert (found["run_id"], found["cases"]["lost"], len(found["changed"])) == (run_id, 4, 4)
    html = client.get(f"{path}/{run_id}/report?as=html")
    assert html.headers["content-disposition"].startswith("attachment")
    for foreign in ("<script", "http://", "https://", 'src="', "<link"):
        assert foreign not in html.text, "the report needs no other file"
    for missing in (f"{path}/{'0' * 36}", f"/rules/{DEFAULT.pack_id}/whatif/{run_id}"):
        assert client.get(missing).status_code == 404


def test_names_from_a_log_are_escaped_in_a_report() -> None:
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "<script>alert(1)</script>", START_MS, 3, merchant_id="<b>shop</b>")
    text = report(document(run(log, pack(*THREE.rules[1:])), ASKED))
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "<b>shop" not in text


def test_failed_run_gives_the_reason(desk: Desk) -> None:
    def work(*_: object) -> dict[str, Any]:
        raise LogGap("payments.inbound partition 3: offset 5 follows 3")

    run_id = desk.runs.begin(STRICT, ASKED, "rui")
    with pytest.raises(LogGap):
        carry_out(desk.runs, run_id, work)
    row = desk.runs.run(run_id)
    assert row is not None
    assert (row.state, row.error) == ("failed", "payments.inbound partition 3: offset 5 follows 3")
    desk.runs.begin(STRICT, ASKED, "rui", alone=True)
    with pytest.raises(WhatifRunError, match="one at a time"):
        desk.runs.begin(STRICT, ASKED, "rui", alone=True)


@pytest.mark.parametrize(
    ("most", "step"), [(1, 1), (5, 1), (6, 2), (11, 5), (26, 10), (129, 50), (251, 100), (9_999, 2_000)]
)
def test_chart_gridlines_have_round_values(most: int, step: int) -> None:
    assert step_of(most) == step


def test_what_if_without_payments_is_shown() -> None:
    found = document(run(MemoryLog(), pack()), ASKED)
    assert (found["payments"], found["changed"], found["per_day"]) == (0, [], [])
    assert "No case differs" in report(found)
