"""The catalogue of analyst acts: it is complete, and everything that offers acts is made from it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from console.cases.act_catalog import ACTS
from console.cases.act_fields import FIELDS
from console.people.roles import P
from console.web.act_bodies import BODIES, FIELD_TYPES
from console.web.pages.case_actions import ANSWERS
from console.web.pages.shortcuts import CASE, EVERYWHERE, NAVIGATION, QUEUE
from console.web.route_permissions import ROUTES
from domain.cases.commands import AnalystCommand
from domain.cases.events import CaseEvent

ROOT = Path(__file__).parents[2]


def test_every_analyst_command_has_exactly_one_entry() -> None:
    assert sorted(act.command.__name__ for act in ACTS.values()) == sorted(
        command.__name__ for command in get_args(AnalystCommand)
    )
    assert all(name == act.name for name, act in ACTS.items())


def test_every_field_of_an_act_has_one_entry_and_one_type() -> None:
    assert {name for act in ACTS.values() for name in act.fields} == FIELDS.keys() == FIELD_TYPES.keys()
    assert {name: tuple(body.model_fields) for name, body in BODIES.items()} == {
        name: act.fields for name, act in ACTS.items()
    }


def test_an_answer_is_an_event_that_answers_commands() -> None:
    assert set(ANSWERS) <= {event.__name__ for event in get_args(CaseEvent)}
    for act in ACTS.values():
        for answer in act.answers:
            assert ANSWERS[answer.event.__name__] == answer, "an event has one confirmation and one undo"


def test_an_undo_needs_no_more_than_the_answer_that_it_takes_back() -> None:
    undoes = {answer.undo for answer in ANSWERS.values() if answer.undo}
    assert {control for name in undoes for control in ACTS[name].controls} <= {"linked", "reason"}


def test_bulk_acts_need_no_more_than_the_form_of_the_queue_gives() -> None:
    bulk = [act for act in ACTS.values() if act.bulk_label]
    assert {control for act in bulk for control in act.controls} <= {"assignee", "reason", "until"}


def test_no_key_means_two_things_on_one_page() -> None:
    everywhere = [shortcut.key for shortcut in EVERYWHERE]
    acts = {act.key for act in ACTS.values() if act.key}
    for page in (
        [*everywhere, *acts, *(shortcut.key for shortcut in CASE)],
        [*everywhere, *(key.key for key in QUEUE)],
    ):
        assert len(page) == len(set(page))
    assert len({link.key for link in NAVIGATION}) == len(NAVIGATION)


def test_every_shortcut_calls_a_function_of_the_script() -> None:
    script = (ROOT / "console" / "web" / "static" / "console.js").read_text(encoding="utf-8")
    body = script.partition("const actions = {")[2].partition("\n    };")[0]
    functions = set(re.findall(r"^      (\w+): \(\) =>", body, re.MULTILINE))
    assert functions == {shortcut.action for shortcut in (*EVERYWHERE, *QUEUE, *CASE) if shortcut.action}


def test_the_documentation_lists_every_command_with_its_fields_and_its_undo() -> None:
    rows = (ROOT / "docs" / "cases.md").read_text(encoding="utf-8").splitlines()
    for act in ACTS.values():
        (row,) = [row for row in rows if row.startswith(f"| `{act.command.__name__}` |")]
        _, _, fields, answer, undo, _ = row.split("|")
        assert {name for name in re.findall(r"`(\w+)`", fields) if name in FIELDS} == set(act.fields), row
        assert all(f"`{each.event.__name__}`" in answer for each in act.answers), row
        undoes = {ACTS[each.undo].command.__name__ for each in act.answers if each.undo}
        assert undoes == set(re.findall(r"`(\w+)`", undo)), row


def test_only_leads_assign_merge_and_unmerge() -> None:
    lead = {name for name, act in ACTS.items() if act.permission == P.LEAD_CASES}
    assert lead == {"assign", "merge", "unmerge"}
    assert all(act.permission in (P.WORK_CASES, P.LEAD_CASES) for act in ACTS.values())
    for name, act in ACTS.items():
        assert ROUTES[f"POST /api/v1/cases/{{case_id}}/{name}"] == ROUTES[f"POST /cases/{{case_id}}/{name}"]
        assert ROUTES[f"POST /cases/{{case_id}}/{name}"] == act.permission


def test_a_planted_act_appears_everywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.planted_act", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    page, text = found.pop("page"), found.pop("help")
    assert found == {
        "operation": {"operationId": "freeze", "summary": "Freeze a case."},
        "permissions": [
            "POST /api/v1/cases/{case_id}/freeze lead-cases",
            "POST /cases/{case_id}/freeze lead-cases",
        ],
        "button": '<button type="button" class="" data-key="f" data-dialog="freeze">',
        "button of an analyst": "",
        "dialog": True,
        "key in the help": True,
        "bulk action": True,
        "status for a lead": 200,
        "status for an analyst": 403,
        "status without a reason": 422,
        "commands": [["FreezeCase", "lea"], ["FreezeCase", "lea"]],
    }
    assert "<b>Frozen.</b>" in page
    assert "/wake" in page
    assert all(words in text for words in ("Freeze a case.", "--reason", "--actor", "--seen"))
