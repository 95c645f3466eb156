"""Benchmark of the console: response times with many cases, many readers at once, and incoming payments."""

import asyncio
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

import psutil

from console.bench.latency import percentiles
from console.monitor.health import read_figures
from console.people.roles import Role
from console.system.lifecycle import prepare
from console.terminal import messages, print_status_line, progress
from console.waiting import ProgressStalled
from console.wiring import case_table, people
from domain.cases.events import CaseAssigned, CaseClosed, CaseEscalated, CaseOpened, NoteAdded, SequencedCaseEvent
from domain.cases.status import DONE_STATUSES
from infra import stack
from infra.parts import python_command
from infra.services import CONSOLE, metrics_port, service_name, services
from infra.settings import Settings
from projections.logs.known import KnownEvent
from projections.views.rebuild import fold, write_views

CASES: Final = UUID("0f8d7b52-52a1-5d38-9d0e-3e0e4e1ac0de")
TYPOLOGIES: Final = ("rapid_spending", "impossible_travel", "stolen_card", "card_testing", "account_takeover")
ANALYSTS: Final = tuple(f"analyst-{number:02}" for number in range(20))
ACCOUNTS: Final = 60_000
"""Accounts with cases and payments: with few of them, 100 payments/s would continually flag rapid spending."""
BATCH: Final = 5_000
WARM_S: Final = 5.0
BOARD_WITHIN_S: Final = 300.0
AIM_MS: Final = 100.0
SHOWN_FRACTION: Final = 0.9
"""Fraction of opened cases that are from the reader's last queue page; the others are random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLoad:
    """Parameters of a run."""

    cases: int
    readers: int
    seconds: float
    payments_per_s: float
    pause_ms: float
    """Mean pause of a reader between two requests, in milliseconds; 0 measures the console's maximum."""
    seed: int


def console_settings(settings: Settings, run: str) -> Settings:
    """Return the settings of a separate system beside the user's own."""
    return settings.model_copy(
        update={
            "prefix": f"bench-{run}.",
            "flink_port": settings.flink_port + 20,
            "metrics_port": settings.metrics_port + 60,
            "console_port": settings.console_port + 60,
            "clock_every_s": 0,
        }
    )


def bench_console(settings: Settings, load: ConsoleLoad) -> dict[str, Any]:
    """Fill the case table, start the system, read pages, and return the report."""
    prepare(settings)
    begun = time.monotonic()
    events = fill_case_table(settings, load)
    filled_s = time.monotonic() - begun
    tokens = [_create_token(settings, name) for name in ANALYSTS[: load.readers]]
    begun = time.monotonic()
    stack.up(settings, services(settings), print_status_line)
    started_s = time.monotonic() - begun
    try:
        with _running_traffic(settings, load):
            figures = asyncio.run(_run_readers(settings, load, tokens))
    finally:
        stack.down(settings, services(settings), print_status_line)
    return {
        "cases": load.cases,
        "events_stored": events,
        "events_stored_per_s": round(events / filled_s),
        "start_s": round(started_s, 1),
        "readers": load.readers,
        "pause_ms": load.pause_ms,
        "payments_per_s": load.payments_per_s,
        **figures,
    }


def fill_case_table(settings: Settings, load: ConsoleLoad) -> int:
    """Store synthetic cases as a rebuild does, and return the number of events stored.

    This part is not measured. Cases of an earlier run under the same name are reused; then it returns 0.
    """
    table, events = case_table(settings), 0
    if table.view(case_id_of(load.cases - 1)) is not None:
        return 0
    with progress("cases stored", load.cases) as seen:
        for start in range(0, load.cases, BATCH):
            made = [
                event
                for number in range(start, min(start + BATCH, load.cases))
                for event in synthetic_case(number, load.seed)
            ]
            write_views(table, fold(KnownEvent(event, _time_of(number)) for number, event in enumerate(made)).items())
            events += len(made)
            seen(start + BATCH)
    return events


def _time_of(number: int) -> int:
    return 1_750_000_000_000 + number


def case_id_of(number: int) -> str:
    """Return the id of a synthetic case."""
    return str(uuid5(CASES, str(number)))


def synthetic_case(number: int, seed: int) -> list[SequencedCaseEvent]:
    """Return the events of one synthetic case; equal number and seed give equal events."""
    draw = random.Random(f"{seed} {number}")  # noqa: S311 - seeded on purpose
    case_id, account, at_ms = case_id_of(number), f"acct-{number % ACCOUNTS:06}", 1_750_000_000_000 + number * 700
    opened = CaseOpened(
        account_id=account,
        case_id=case_id,
        sequence=1,
        typology=draw.choice(TYPOLOGIES),
        flag_id=f"flag-{number}",
        transaction_id=f"tx-{number}",
        event_time=at_ms,
        amount_minor=draw.randrange(100, 900_000),
        currency="EUR",
        score=draw.randrange(500, 1_000),
        rules=("velocity",),
        opened_at_ms=at_ms,
        content_digest="00",
        merchant_id=f"merchant-{draw.randrange(2_000):04}",
        terminal_id=f"terminal-{draw.randrange(8_000):04}",
        device_id=f"device-{draw.randrange(40_000):05}",
        card_id=f"tok-{number % 70_000:05}",
        payment_method="CARD",
        channel="POS",
        country="DE",
    )
    later: list[Callable[[dict[str, Any]], SequencedCaseEvent]] = []
    actor = draw.choice(ANALYSTS)
    if draw.random() < 0.3:
        later.append(
            lambda base: CaseEscalated(
                **_without_key(base, "command_id"),
                trigger="score",
                detail="",
                cause_id=f"c-{number}",
                escalated_at_ms=at_ms,
            )
        )
    if draw.random() < 0.5:
        later.append(
            lambda base: CaseAssigned(**base, assignee=actor, previous_assignee=None, assigned_at_ms=at_ms + 1_000)
        )
    if draw.random() < 0.2:
        later.append(
            lambda base: NoteAdded(
                **base, note_id=f"n-{number}", text="looked at it", attachments=(), added_at_ms=at_ms + 2_000
            )
        )
    if draw.random() < 0.3:
        later.append(
            lambda base: CaseClosed(
                **base, disposition="false_positive", reason="known", payments=(), closed_at_ms=at_ms + 3_000
            )
        )
    base = {"account_id": account, "case_id": case_id, "actor": actor}
    return [
        opened,
        *(
            make({**base, "sequence": place, "command_id": f"command-{number}-{place}"})
            for place, make in enumerate(later, start=2)
        ),
    ]


def _without_key(base: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in base.items() if key != name}


def _create_token(settings: Settings, name: str) -> str:
    accounts = people(settings)
    if accounts.first(name, Role.ANALYST) is None:
        accounts.set_roles(name, frozenset({Role.ANALYST}), "bench")
    return accounts.add_token(name, "bench", 1, "bench")


@contextmanager
def _running_traffic(settings: Settings, load: ConsoleLoad) -> Iterator[None]:
    """Send payments from another process for the duration of the block."""
    if not load.payments_per_s:
        yield
        return
    generate = python_command(
        *("console.cli.app", "generate", "--continuous"),
        *("--rate", str(load.payments_per_s), "--accounts", str(ACCOUNTS)),
    )
    environment = {**os.environ, **settings.variables()}
    with subprocess.Popen(generate, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sender:
        try:
            yield
        finally:
            sender.terminate()


class KeepAliveConnection:
    """One persistent HTTP connection. It supports only what our server uses, so that the client costs little."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._where, self._token = (host, port), token
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def get(self, path: str) -> tuple[int, bytes]:
        """Request a path; return the status and the body."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._where)
        assert self._reader is not None
        head = f"GET {path} HTTP/1.1\r\nHost: {self._where[0]}\r\nAuthorization: Bearer {self._token}\r\n\r\n"
        self._writer.write(head.encode())
        top = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = next(int(line.partition(":")[2]) for line in top.split("\r\n") if line.startswith("content-length:"))
        return int(top.split(" ")[1]), await self._reader.readexactly(size)

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def choose_page(draw: random.Random, cases: int, shown: list[str]) -> tuple[str, str]:
    """Choose the next request: the kind of page and its path. Most opened cases were on the last queue page."""
    chosen = draw.choice(shown) if shown and draw.random() < SHOWN_FRACTION else case_id_of(draw.randrange(cases))
    case = f"/api/v1/cases/{chosen}"
    kinds: list[tuple[str, str, int]] = [
        ("queue", f"/api/v1/queue?{_filters(draw)}", 50),
        ("queue, next page", "/api/v1/queue?sort=opened&cursor=NEXT", 5),
        ("counts", "/api/v1/queue/counts", 5),
        ("case", case, 15),
        ("timeline", f"{case}/timeline", 15),
        ("neighbours", f"{case}/neighbours", 5),
        ("search", f"/api/v1/search?by=merchant&value=merchant-{draw.randrange(2_000):04}", 5),
        ("queue page", f"/queue?{_page_filters(draw)}", 20),
        ("case page", f"/cases/{chosen}", 20),
    ]
    kind, path, _ = draw.choices(kinds, weights=[weight for _, _, weight in kinds])[0]
    return kind, path


def _page_filters(draw: random.Random) -> str:
    """Return query parameters in the names of the queue page's form."""
    some = [f"sort={draw.choice(('-score', 'opened', '-opened', '-changed', 'due'))}"]
    if draw.random() < 0.5:
        some.append(f"typology={draw.choice(TYPOLOGIES)}")
    if draw.random() < 0.4:
        some += [f"status={status}" for status in draw.sample(("new", "open", "in_review", *DONE_STATUSES), 2)]
    if draw.random() < 0.2:
        some.append(f"assignee={draw.choice(('-', *ANALYSTS))}")
    if draw.random() < 0.3:
        some.append(f"score_from={draw.randrange(500, 1_000)}")
    if draw.random() < 0.2:
        some.append("escalated=yes")
    return "&".join(some)


def _filters(draw: random.Random) -> str:
    some = [f"sort={draw.choice(('-score', 'opened', '-opened', '-changed', 'due'))}", f"limit={draw.choice((25, 50))}"]
    if draw.random() < 0.5:
        some.append(f"typology={draw.choice(TYPOLOGIES)}")
    if draw.random() < 0.4:
        some += [f"status={status}" for status in draw.sample(("new", "open", "in_review", *DONE_STATUSES), 2)]
    if draw.random() < 0.2:
        some.append(f"assignee={draw.choice(('', *ANALYSTS))}")
    if draw.random() < 0.3:
        some.append(f"score_from={draw.randrange(500, 1_000)}")
    if draw.random() < 0.2:
        some.append("escalated=true")
    return "&".join(some)


async def _run_readers(settings: Settings, load: ConsoleLoad, tokens: list[str]) -> dict[str, Any]:
    taken: dict[str, list[float]] = {}
    readers = [KeepAliveConnection(settings.host, settings.console_port, token) for token in tokens]
    await _until_ready(readers[0])
    readers[0].close()  # the console closes connections that are idle for seconds
    await asyncio.to_thread(_until_warm, settings, load)
    console = _process_of(settings)
    measured_from = time.monotonic() + WARM_S
    until = measured_from + load.seconds
    begun_cpu = 0.0

    async def run_reader(number: int, reader: KeepAliveConnection) -> None:
        draw = random.Random(f"{load.seed} {number}")  # noqa: S311 - seeded on purpose
        cursor, shown = "", list[str]()
        while time.monotonic() < until:
            kind, path = choose_page(draw, load.cases, shown)
            begun = time.monotonic()
            status, body = await reader.get(path.replace("cursor=NEXT", f"cursor={cursor}" if cursor else ""))
            if status != 200:
                raise RuntimeError(f"{status} for {path}: {body[:200]!r}")
            if kind == "queue":
                shown = [part[:36].decode() for part in body.split(b'"case_id": "')[1:]]
            if kind == "queue, next page":
                cursor = body.rpartition(b'"next":')[2].strip(b'"}').decode().replace("null", "")
            if begun >= measured_from:
                taken.setdefault(kind, []).append((time.monotonic() - begun) * 1000)
            await asyncio.sleep(load.pause_ms / 1000 * draw.uniform(0.5, 1.5))

    async def warm() -> None:
        nonlocal begun_cpu
        await asyncio.sleep(WARM_S)
        begun_cpu = sum(console.cpu_times()[:2])

    await asyncio.gather(warm(), *(run_reader(number, reader) for number, reader in enumerate(readers)))
    used_s = sum(console.cpu_times()[:2]) - begun_cpu
    for reader in readers:
        reader.close()
    return _figures(taken, load.seconds, used_s, console)


async def _until_ready(reader: KeepAliveConnection) -> None:
    """Wait until the board has read the case table. Raises ProgressStalled."""
    begun = time.monotonic()
    while (await reader.get("/api/v1/queue/counts"))[0] == 503:
        if time.monotonic() - begun > BOARD_WITHIN_S:
            raise ProgressStalled(f"the board was not filled within {BOARD_WITHIN_S:.0f} s. See the console's log")
        await asyncio.sleep(0.5)
    messages.print(f"the board was filled {time.monotonic() - begun:.1f} s after the start", highlight=False)


def _until_warm(settings: Settings, load: ConsoleLoad) -> None:
    """Wait until the console has read all timelines into memory, before anything is measured. Raises
    ProgressStalled.
    """
    begun, url = time.monotonic(), f"http://{settings.host}:{metrics_port(settings, CONSOLE)}/metrics"
    while (read_figures(url, "fraudcase_console_timelines") or [0])[0] < load.cases:
        if time.monotonic() - begun > BOARD_WITHIN_S:
            raise ProgressStalled(f"timelines were not read within {BOARD_WITHIN_S:.0f} s. See the console's log")
        time.sleep(1)
    messages.print(f"all timelines were read {time.monotonic() - begun:.1f} s later", highlight=False)


def _process_of(settings: Settings) -> psutil.Process:
    names = {each.name: each.pid for each in stack.status(settings, services(settings))}
    pid = names[service_name(settings, CONSOLE)]
    assert pid is not None
    return psutil.Process(pid)


def _percentiles(times_ms: list[float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in percentiles(times_ms, ("p50", "p95", "p99")).items()}


def _figures(taken: dict[str, list[float]], seconds: float, used_s: float, console: psutil.Process) -> dict[str, Any]:
    every = [each for times in taken.values() for each in times]
    return {
        "answers": len(every),
        "answers_per_s": round(len(every) / seconds),
        "cpu_ms_per_answer": round(used_s * 1000 / len(every), 2),
        "memory_mb": console.memory_info().rss >> 20,
        **{f"{name}_ms": value for name, value in _percentiles(every).items()},
        **{
            f"p95_{kind.replace(', ', ' ').replace(' ', '_')}_ms": _percentiles(times)["p95"]
            for kind, times in sorted(taken.items())
        },
        "within_aim": all(_percentiles(times)["p95"] <= AIM_MS for times in taken.values()),
        "pages": {kind: {"answers": len(times), **_percentiles(times)} for kind, times in sorted(taken.items())},
    }
