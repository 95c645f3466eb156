"""`fraudcase case list`, `show`, `close`, `escalate`: a command enters the log, its answer comes back by its id."""

import json
import sys
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import typer
from confluent_kafka import Producer

from console.progress import Stalled, end_offsets
from console.stack_commands import AsJson
from console.work import case_table, explained, fail, report, topics
from domain.case_events import command_answered
from domain.events import (
    DISPOSITIONS,
    CaseClosed,
    CaseEvent,
    CloseCase,
    Command,
    CommandRejected,
    EscalateCase,
    from_fields,
    to_fields,
)
from domain.payment import holds_card_number
from infra.settings import Settings
from projections.case_view import CaseView, view_of
from projections.log import KafkaLog
from schemas.codec import Decoder, Encoder, Unreadable
from schemas.registry import Registry

PATIENCE_S = 30.0
CaseId = Annotated[str, typer.Argument(help="the id of the case")]
Actor = Annotated[str, typer.Option("--actor", help="who does it")]
Reason = Annotated[str, typer.Option("--reason", help="why, in words")]
Seen = Annotated[
    int | None, typer.Option("--seen", help="the version of the case that was looked at; default: the stored one")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    case = typer.Typer(no_args_is_help=True, help="Fraud cases: look at them, decide on them.")
    case.command("list")(list_cases)
    for command in (show, close, escalate):
        case.command()(command)
    app.add_typer(case, name="case")


def list_cases(
    status: Annotated[str | None, typer.Option(help="open or closed")] = None,
    limit: Annotated[int, typer.Option(help="at most so many")] = 50,
    as_json: AsJson = False,
) -> None:
    """The cases, highest score first."""
    views = [view_of(item) for item in case_table(Settings()).scan() if item["sk"] == "view"]
    chosen = [view for view in views if status in (None, view.status)]
    chosen.sort(key=lambda view: (-view.score_max, view.opened_at_ms, view.case_id))
    lines = [_line(view) for view in chosen[:limit]]
    if as_json:
        sys.stdout.write(json.dumps(lines, indent=2) + "\n")
        return
    for line in lines:
        sys.stdout.write("  ".join(f"{value}" for value in line.values()) + "\n")


def _line(view: CaseView) -> dict[str, object]:
    return {
        "case_id": view.case_id,
        "status": view.disposition or view.status,
        "score": view.score_max,
        "flags": view.flags,
        "typology": view.typology,
        "account_id": view.account_id,
        "sequence": view.sequence,
    }


def show(case_id: CaseId, as_json: AsJson = False) -> None:
    """A case and its timeline."""
    settings = Settings()
    view = _view(settings, case_id)
    fields = {name: getattr(view, name) for name in CaseView.__slots__}
    document = {name: value for name, value in fields.items() if value is not None}
    timeline = [json.loads(item["body"]) for item in case_table(settings).items_of(case_id) if item["sk"] != "view"]
    if as_json:
        sys.stdout.write(json.dumps({**document, "timeline": timeline}, indent=2) + "\n")
        return
    report(document, as_json=False)
    for event in timeline:
        sys.stdout.write(f"{event.get('sequence', ''):>4}  {event['type']}\n")


def close(
    case_id: CaseId,
    disposition: Annotated[str, typer.Option(help=f"one of {', '.join(DISPOSITIONS)}")],
    actor: Actor,
    reason: Reason,
    seen: Seen = None,
    as_json: AsJson = False,
) -> None:
    """Close a case; a confirmed fraud puts a label on each of its payments. Exit 1 if it was refused."""

    def command(view: CaseView, sequence: int) -> CloseCase:
        return CloseCase(
            account_id=view.account_id,
            case_id=case_id,
            command_id=str(uuid.uuid4()),
            actor=actor,
            seen_sequence=sequence,
            disposition=disposition,
            reason=reason,
            requested_at_ms=time.time_ns() // 1_000_000,
        )

    _act(case_id, command, reason, seen, as_json)


def escalate(case_id: CaseId, actor: Actor, reason: Reason, seen: Seen = None, as_json: AsJson = False) -> None:
    """Ask for more eyes on a case. Exit 1 if it was refused."""

    def command(view: CaseView, sequence: int) -> EscalateCase:
        return EscalateCase(
            account_id=view.account_id,
            case_id=case_id,
            command_id=str(uuid.uuid4()),
            actor=actor,
            seen_sequence=sequence,
            reason=reason,
            requested_at_ms=time.time_ns() // 1_000_000,
        )

    _act(case_id, command, reason, seen, as_json)


def _act(case_id: str, make: Callable[[CaseView, int], Command], reason: str, seen: int | None, as_json: bool) -> None:
    if holds_card_number(reason):
        raise fail("the reason holds a card number, which must not be stored: say it without")
    settings = Settings()
    view = _view(settings, case_id)
    with explained():
        answer = ask(settings, make(view, view.sequence if seen is None else seen))
    report(_shown(answer), as_json=as_json)
    if isinstance(answer, CommandRejected):
        raise fail(f"refused: {answer.reason}")


def _shown(answer: CaseEvent) -> dict[str, Any]:
    fields = to_fields(answer)
    if isinstance(answer, CaseClosed):
        fields["payments"] = len(answer.payments)
    return {"answer": type(answer).__name__, **fields}


def _view(settings: Settings, case_id: str) -> CaseView:
    view = case_table(settings).view(case_id)
    if view is None:
        raise fail(f"there is no case {case_id}. The cases: fraudcase case list")
    return view


def ask(settings: Settings, command: Command) -> CaseEvent:
    """Put a command into the log and wait for its answer. Raises Stalled, NotAcknowledged."""
    names, registry = topics(settings), Registry(settings.registry_url)
    ends = end_offsets(settings.kafka_bootstrap, names.cases_events)
    follower = KafkaLog(settings.kafka_bootstrap).follow(
        {(names.cases_events, number): end for number, end in ends.items()}
    )
    try:
        _send(settings, names.cases_inbox, command, Encoder(registry.ids()))
        decoder, begun = Decoder(registry.schema_text), time.monotonic()
        while time.monotonic() - begun < PATIENCE_S:
            for record in follower.poll(0.1):
                answer = _answer(decoder, record.value, command.command_id)
                if answer is not None:
                    return answer
    finally:
        follower.close()
    raise Stalled(
        f"command {command.command_id} is in the log, and was not answered within {PATIENCE_S:.0f} s. It will be: "
        "look at the case again. Look: fraudcase status"
    )


def _answer(decoder: Decoder, value: bytes | None, command_id: str) -> CaseEvent | None:
    try:
        event = from_fields(*decoder.decode(value))
    except (Unreadable, KeyError, TypeError):
        return None  # somebody else's; the view worker complains about it
    return event if isinstance(event, CaseEvent) and command_answered(event) == command_id else None


def _send(settings: Settings, topic: str, command: Command, encoder: Encoder) -> None:
    failures: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "partitioner": "murmur2_random",  # the same as Java's: an account's records share one number everywhere
            "enable.idempotence": True,
            "acks": "all",
        }
    )
    producer.produce(
        topic,
        encoder.encode(type(command).__name__, to_fields(command)),
        command.account_id.encode(),
        on_delivery=lambda error, _: failures.append(str(error)) if error else None,
    )
    if producer.flush(PATIENCE_S) or failures:
        raise Stalled(f"the command was not written: {failures[:1] or 'no answer from Kafka'}. Look: fraudcase status")
