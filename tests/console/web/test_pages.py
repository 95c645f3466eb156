"""The pages in a real browser, with traffic: they work, also by keyboard, log nothing to the browser's console, and
are accessible. tests/acceptance/test_walk.py walks through the real stack.
"""

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from console.display.formats import duration, measured, money, moneys
from console.rules.store import RulePackStore
from console.web.pages.maps import countries, equal_earth
from domain.risk.default_packs import DEFAULT, THREE
from domain.risk.families.velocity import Velocity
from tests.support.browser import NARROW, WIDE, Visitor, chromium
from tests.support.desk import PASSWORD
from tests.support.stage import Stage, free_port, staged

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code

VENDOR = Path(__file__).parents[3] / "console" / "web" / "static" / "vendor"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage"), port, payments=4_000) as made:
        yield made


@pytest.fixture
def visit(browser: Browser, stage: Stage, port: int) -> Iterator["Visits"]:
    visits = Visits(browser, stage, f"http://127.0.0.1:{port}")
    yield visits
    visits.end()


class Visits:
    """Browsers of one test. None may have logged a complaint."""

    def __init__(self, browser: Browser, stage: Stage, url: str) -> None:
        self._browser, self._url, self.stage = browser, url, stage
        self._made: list[Visitor] = []

    def __call__(self, name: str, **options: object) -> Visitor:
        visitor = Visitor(self._browser, self._url, **options)
        visitor.sign_in(name, PASSWORD)
        self._made.append(visitor)
        return visitor

    def end(self) -> None:
        complaints = [complaint for visitor in self._made for complaint in visitor.complaints]
        for visitor in self._made:
            visitor.context.close()
        assert complaints == []


def a_case(stage: Stage, status: str, least_flags: int = 1) -> str:
    board = stage.desk.log.board
    found = [view for view in board.views(list(board._slots)) if view.status == status and view.flags >= least_flags]
    return max(found, key=lambda view: (view.flags, view.case_id)).case_id


# -- accessibility --------------------------------------------------------------------------------------


def test_no_page_has_a_serious_violation(visit: "Visits") -> None:
    """Wide and narrow, light and dark: changed on the loaded page, since loading takes longest."""
    case = a_case(visit.stage, "in_review", 2)
    pages = {
        "lea": [
            "/queue",
            f"/cases/{case}",
            f"/cases/{case}?known_at_ms=1",
            "/monitor",
            "/rules",
            f"/rules/{DEFAULT.pack_id}",
            f"/rules/{DEFAULT.pack_id}/whatif",
            "/account",
        ],
        "rui": ["/rules", "/rules/draft", f"/rules/draft?from={DEFAULT.pack_id}"],
        "aud": ["/audit", f"/cases/{case}"],
        "adm": ["/people", "/webhooks"],
    }
    for name, paths in pages.items():
        visitor = visit(name)
        for path in paths:
            visitor.go(path)
            if path == "/monitor":
                visitor.page.wait_for_selector("#series", state="attached")
            assert in_every_look(visitor) == [], path
    visitor.context.clear_cookies()  # the sign-in page last, without a session
    visitor.page.goto(f"{visitor.url}/sign-in")
    assert in_every_look(visitor) == []


def in_every_look(visitor: Visitor) -> list[str]:
    """Return axe's findings on a page in each theme and width."""
    found: list[str] = []
    for dark, size in product((False, True), (WIDE, NARROW)):
        theme: Literal["dark", "light"] = "dark" if dark else "light"
        visitor.page.emulate_media(color_scheme=theme)
        visitor.page.set_viewport_size(size)
        found += [f"{theme}, {size['width']} wide: {each}" for each in visitor.violations()]
    visitor.page.set_viewport_size(WIDE)
    return found


def test_dialogs_have_no_serious_violation_either(visit: "Visits") -> None:
    visitor = visit("lea")
    visitor.go(f"/cases/{a_case(visit.stage, 'in_review')}")
    for key in ("?", "n", "c", "s", "a", "l"):
        visitor.page.keyboard.press(key)
        visitor.page.wait_for_selector("dialog[open]")
        assert visitor.violations() == [], key
        visitor.page.keyboard.press("Escape")
        visitor.page.wait_for_selector("dialog[open]", state="detached")


# -- live updates ---------------------------------------------------------------------------------------


def test_case_page_shows_the_act_of_another_analyst_within_a_second(visit: "Visits") -> None:
    case = a_case(visit.stage, "new")
    ana, ben = visit("ana"), visit("ben")
    ana.go(f"/cases/{case}")
    ben.go(f"/cases/{case}")
    ana.page.keyboard.press("t")
    expect(ben.page.locator("#live")).to_contain_text("ana took the case", timeout=2_000)
    expect(ana.page.locator("#live")).to_contain_text("ana took the case", timeout=2_000)


def test_queue_shows_a_new_case_without_a_reload(visit: "Visits") -> None:
    ana = visit("ana")
    ana.go("/queue?sort=-opened")
    visit.stage.desk.flag("acct-new", event_time=visit.stage.clock(), score=990)
    expect(ana.page.locator("tr[data-case]").first).to_contain_text("acct-new", timeout=2_000)


def test_monitor_updates_its_counts(visit: "Visits") -> None:
    ana = visit("ana")
    ana.go("/monitor")
    ana.page.wait_for_selector("#series", state="attached")
    first = ana.page.locator("#series").get_attribute("data-series")
    ana.page.wait_for_function(
        "before => document.querySelector('#series').dataset.series !== before", arg=first, timeout=3_000
    )
    assert ana.page.locator(".plot canvas").count() == 1


def test_rules_page_shows_a_new_draft_without_a_reload(visit: "Visits") -> None:
    rui = visit("rui")
    rui.go("/rules")
    RulePackStore(visit.stage.desk.engine, visit.stage.clock).draft(THREE, "rui")
    expect(rui.page.locator("#live")).to_contain_text("drafted by rui", timeout=2_500)


STRICTER = replace(
    DEFAULT,
    name="stricter",
    rules=tuple(replace(rule, at_least=8) if isinstance(rule, Velocity) else rule for rule in DEFAULT.rules),
)


def test_pack_goes_from_draft_by_what_if_and_second_approval_to_active(visit: "Visits") -> None:
    rui, lea = visit("rui"), visit("lea")
    rui.go("/rules")
    rui.page.get_by_role("link", name="New draft").click()
    rui.page.get_by_label("or its text").fill("name: stricter\nversion: 1\nrules: none\n")
    rui.page.get_by_role("button", name="Save draft").click()
    expect(rui.page.get_by_role("alert")).to_contain_text("draft.yaml:3:")
    assert rui.violations() == []
    rui.complaints.clear()  # the browser logs the 422 itself
    rui.page.get_by_label("or its text").fill(STRICTER.canonical)
    rui.page.get_by_role("button", name="Save draft").click()
    rui.page.wait_for_url(f"**/rules/{STRICTER.pack_id}")
    expect(rui.page.locator(".diff .after").first).to_have_text("8")
    assert rui.page.get_by_role("button", name="Approve").count() == 0, "the author cannot approve a pack"
    lea.go(f"/rules/{STRICTER.pack_id}")
    rui.page.get_by_role("link", name="What if").click()
    rui.page.get_by_role("button", name="Run what-if").click()
    all_of_it = rui.page.get_by_role("link", name="All of it")
    expect(all_of_it).to_be_visible(timeout=30_000)
    expect(rui.page.locator(".compared")).to_contain_text("Analyst hours")
    all_of_it.click()
    expect(rui.page.locator("details.difference").first).to_be_visible()
    rui.page.locator("details.difference summary").first.click()
    expect(rui.page.locator("details[open] .side-event").first).to_be_visible()
    assert rui.violations() == []
    expect(lea.page.locator(".facts")).to_contain_text("payments", timeout=5_000)
    lea.page.get_by_role("button", name="Approve").click()
    assert lea.violations() == []
    lea.page.locator("dialog[open]").get_by_role("button", name="Approve").click()
    expect(lea.page.locator("#log-title").locator("xpath=../..")).to_contain_text("lea approved with this what-if")
    lea.page.get_by_role("button", name="Activate").click()
    lea.page.locator("dialog[open]").get_by_role("button", name="Activate").click()
    expect(lea.page.locator("h1")).to_contain_text("active")
    assert visit.stage._risk.active is not None
    assert visit.stage._risk.active.pack_id == STRICTER.pack_id


# -- by keyboard ----------------------------------------------------------------------------------------


def test_the_queue_is_worked_by_keyboard(visit: "Visits") -> None:
    ana = visit("ana")
    ana.go("/queue?status=new")
    ana.page.keyboard.press("j")
    ana.page.keyboard.press("j")
    second = ana.page.locator("tr[data-case]").nth(1)
    expect(second).to_have_class(re.compile("here"))
    ana.page.keyboard.press("k")
    chosen = ana.page.locator("tr.here").get_attribute("data-case")
    ana.page.keyboard.press("Enter")
    ana.page.wait_for_url(f"**/cases/{chosen}")
    ana.page.wait_for_selector("#live-state.on")
    ana.page.keyboard.press("q")
    ana.page.wait_for_url("**/queue")


def test_take_next_gives_the_first_free_case_of_the_filter(visit: "Visits") -> None:
    ben = visit("ben")
    ben.go("/queue?typology=unusual_amount")
    ben.page.keyboard.press("t")
    ben.page.wait_for_url("**/cases/*")
    view = visit.stage.desk.log.board.view(ben.page.url.rpartition("/")[2])
    assert view is not None
    assert (view.assignee, view.typology) == ("ben", "unusual_amount")


def test_filters_are_in_the_url_and_narrow_the_queue(visit: "Visits") -> None:
    lea = visit("lea")
    lea.go("/queue")
    lea.page.get_by_label("snoozed", exact=True).check(force=True)
    lea.page.wait_for_url("**status=snoozed**")
    expect(lea.page.locator("tr[data-case] .s-snoozed").first).to_be_visible()
    shown = lea.page.locator("tr[data-case]").count()
    assert shown == lea.page.locator("tr[data-case] .s-snoozed").count()
    lea.page.reload()
    expect(lea.page.get_by_label("snoozed", exact=True)).to_be_checked()


def test_u_undoes_the_last_act(visit: "Visits") -> None:
    case = a_case(visit.stage, "new")
    ana = visit("ana")
    ana.go(f"/cases/{case}")
    ana.page.keyboard.press("t")
    expect(ana.page.locator("#said")).to_contain_text("Assigned", timeout=2_000)
    ana.page.keyboard.press("u")
    expect(ana.page.locator("#live")).to_contain_text("ana released the case", timeout=2_000)


def test_second_command_uses_the_version_of_the_first_answer(visit: "Visits") -> None:
    """Although the page does not show it yet."""
    case = a_case(visit.stage, "in_review", 2)
    ana = visit("ana")
    ana.go(f"/cases/{case}")
    ana.page.wait_for_selector("#live-state.on")
    ana.page.route(
        f"**/cases/{case}*",
        lambda route: route.fulfill(status=204) if route.request.method == "GET" else route.fallback(),
    )
    before = notes_of(visit.stage, case)
    for number in (1, 2):
        ana.page.keyboard.press("n")
        ana.page.locator("dialog[open] [name=text]").fill(f"Called {number} times.")
        ana.page.locator("dialog[open] button.primary").click()
        expect(ana.page.locator("dialog[open]")).to_have_count(0)
        expect(ana.page.locator("#said")).to_contain_text("Note added")
        assert notes_of(visit.stage, case) == before + number


def notes_of(stage: Stage, case: str) -> int:
    view = stage.desk.log.board.view(case)
    assert view is not None
    return view.notes


# -- acts on outdated pages ---------------------------------------------------------------------------------


def test_stale_command_shows_the_missed_events(visit: "Visits") -> None:
    case = a_case(visit.stage, "in_review")
    ana = visit("ana")
    ana.go(f"/cases/{case}")
    ana.page.keyboard.press("e") if ana.page.locator("[data-key=e]").count() else ana.page.keyboard.press("c")
    dialog = ana.page.locator("dialog[open]")
    if dialog.locator("[name=disposition]").count():
        dialog.get_by_label("inconclusive").check()
    dialog.get_by_label("Why").fill("nothing more to find")
    view = visit.stage.desk.log.board.view(case)
    assert view is not None
    visit.stage.act(view, "note", "ben", text="A second card now.")
    dialog.locator("button.primary").click()
    conflict = ana.page.locator("[data-conflict]")
    expect(conflict).to_contain_text("note added", timeout=2_000)
    expect(conflict).to_contain_text("the case has moved on")
    expect(ana.page.locator("#live")).to_contain_text("A second card now.")


def test_bulk_acts_are_answered_one_by_one(visit: "Visits") -> None:
    lea = visit("lea")
    lea.go("/queue?status=new&sort=opened")
    for number in range(3):
        lea.page.locator("input[name=case]").nth(number).check()
    bulk = lea.page.locator("[data-bulk]")
    bulk.get_by_label("What to do with them").select_option("snooze")
    bulk.get_by_label("because").fill("after the weekend")
    bulk.get_by_role("button", name="Apply").click()
    expect(lea.page.locator("#said")).to_contain_text("Snooze: 3 of 3 done.", timeout=3_000)


# -- the case as known at a time --------------------------------------------------------------------------


def test_slider_shows_the_case_as_known_then(visit: "Visits") -> None:
    case = a_case(visit.stage, "in_review")
    view = visit.stage.desk.log.board.view(case)
    assert view is not None
    visit.stage.act(view, "note", "ana", text="Found only now.")
    time.sleep(0.01)
    ana = visit("ana")
    ana.go(f"/cases/{case}")
    expect(ana.page.locator("#live")).to_contain_text("Found only now.")
    for _ in range(2):  # to the time at which the note became known, then to the time before it
        shown = ana.page.url
        ana.page.keyboard.press("[")
        expect(ana.page).not_to_have_url(shown)
    assert "known_at_ms=" in ana.page.url
    expect(ana.page.locator("#live")).not_to_contain_text("Found only now.")
    expect(ana.page.get_by_role("toolbar")).to_have_count(0)
    ana.page.get_by_role("link", name="Back to now").click()
    expect(ana.page.locator("#live")).to_contain_text("Found only now.")


def test_the_timeline_sorts_by_either_time(visit: "Visits") -> None:
    ana = visit("ana")
    ana.go(f"/cases/{a_case(visit.stage, 'in_review', 3)}")
    ana.page.get_by_role("link", name="when it happened").click()
    ana.page.wait_for_url("**by=happened")
    times = ana.page.locator(".timeline time").evaluate_all("all => all.map(each => each.dateTime)")
    assert times == sorted(times, reverse=True)
    assert len(times) > 3


# -- sign-in and accounts ----------------------------------------------------------------------------------


def test_an_admin_sees_a_new_password_once_and_no_case(visit: "Visits") -> None:
    adm = visit("adm")
    adm.go("/people")
    assert adm.page.get_by_role("link", name="Queue").count() == 0
    adm.page.get_by_label("Name").fill("new.person")
    adm.page.locator("form[action='/people'] .chip", has_text="auditor").click()
    adm.page.get_by_role("button", name="Add", exact=True).click()
    secret = adm.page.locator(".secret code").inner_text()
    assert len(secret) >= 12
    assert visit.stage.desk.people.check_password("new.person", secret) is not None
    adm.go("/people")
    assert secret not in adm.page.content()


def test_chosen_theme_persists(visit: "Visits") -> None:
    ana = visit("ana", color_scheme="light")
    ana.go("/queue")
    ana.page.get_by_role("button", name="Light or dark").click()
    ana.page.reload()
    assert ana.page.evaluate("document.documentElement.dataset.theme") == "dark"


# -- vendored files and formats ----------------------------------------------------------------------------


def test_vendored_files_match_the_notice() -> None:
    lines = re.findall(r"^([0-9a-f]{64})  (\S+)$", (VENDOR / "NOTICE.md").read_text(), re.MULTILINE)
    assert {name for _, name in lines} == {file.name for file in VENDOR.iterdir()} - {"NOTICE.md"}
    for digest, name in lines:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(money(123_450, "EUR"), "1,234.50 EUR", id="two decimals"),
        pytest.param(money(1_235, "JPY"), "1,235 JPY", id="none"),
        pytest.param(money(-1_234, "KWD"), "-1.234 KWD", id="three, below zero"),
        pytest.param(moneys({"JPY": 100, "EUR": 20_000}), "200.00 EUR, 100 JPY", id="the largest number first"),
        pytest.param(measured(5, "payments", "EUR"), "5 payments", id="a count"),
        pytest.param(measured(1_250_000, "m", "EUR"), "1,250 km", id="a distance"),
        pytest.param(measured(5_000, "minor units", "USD"), "50.00 USD", id="an amount"),
        pytest.param(duration(90_061_000), "1 d 1 h", id="the two largest units"),
        pytest.param(duration(3_600_000), "1 h", id="one unit where the next is none"),
    ],
)
def test_formats_of_displayed_values(said: str, expected: str) -> None:
    assert said == expected


def test_map_places_countries_correctly() -> None:
    """Null Island lies on the middle meridian, and the centres of countries lie in the right directions from each
    other.
    """
    x, y = equal_earth(0, 0)
    assert x == 480
    assert 200 < y < 240
    middle = countries()
    assert middle["US"].x < middle["FR"].x < middle["JP"].x
    assert middle["SE"].y < middle["IT"].y < middle["ZA"].y
    assert all(0 <= country.x <= 960 and 0 <= country.y <= 420 for country in middle.values())
