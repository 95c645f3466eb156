"""`fraudcase explain`: why a payment was flagged or not, and the smallest change that would reverse the decision."""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from console.cli.options import AsJson, Feedback, read_settings
from console.cli.output import errors_as_messages, fail
from console.cli.row_files import read_prepared_rows
from console.payments.files import BadFile
from console.rules.dossier import ExplanationError, InboundRecord, Log, account_records, find_accounts, read_dossier
from console.rules.explain import explain_decision
from console.rules.files import load_pack
from console.scoring.run import LabelFeedbackQueue
from console.scoring.truth import read_truth
from console.terminal import progress
from console.wiring import kafka_logs
from domain.payment import Payment, admit
from domain.record_types import to_fields
from domain.risk.default_packs import DEFAULT
from domain.risk.events import RulesActivated
from domain.risk.packs import BadRulePack, RulePack
from infra.settings import Settings
from projections.logs.log import RecordLog as Recorded
from schemas.codec import Decoder, UnreadableRecord

PLAIN_WIDTH = 160
"""Width of the output in columns when it is not a terminal."""


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(explain)


def explain(
    transaction_id: Annotated[str, typer.Argument(help="id of the payment")],
    transactions: Annotated[
        Path | None, typer.Option(help="file of payments to read instead of the running system's log")
    ] = None,
    rules: Annotated[
        str, typer.Option(help="with --transactions: rule pack, a file or the name of a shipped pack")
    ] = DEFAULT.name,
    labels: Annotated[
        Path | None, typer.Option(help="with --transactions: file of labels, as for `fraudcase score`")
    ] = None,
    feedback: Feedback = None,
    account: Annotated[
        str | None, typer.Option(help="account of the payment, if several accounts have a payment with this id")
    ] = None,
    digest: Annotated[
        str, typer.Option(help="start of the payment's content digest, if the id was used more than once")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Explain a decision: each rule's value, threshold and distance, and the smallest change that reverses it."""
    try:
        with errors_as_messages():
            if transactions:
                lines = _file_lines(transactions, load_pack(rules), labels, feedback)
                found = logs_of([lines], transaction_id)
            else:
                found = _system_logs(read_settings(), transaction_id)
            document = _explain(found, transaction_id, account, digest)
    except (ExplanationError, BadFile, BadRulePack) as error:
        raise fail(str(error)) from error
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        out = Console()
        show(document, out if out.is_terminal else Console(width=PLAIN_WIDTH))


def _explain(found: dict[str, Log], transaction_id: str, account: str | None, digest: str) -> dict[str, Any]:
    accounts = [each for each in found if account in (None, each)]
    if not accounts:
        whose = f" of account {account!r}" if account else ""
        raise ExplanationError(f"there is no payment {transaction_id!r}{whose}")
    if len(accounts) > 1:
        others = ", ".join(accounts[1:10])
        raise ExplanationError(
            f"{len(accounts)} accounts have a payment {transaction_id!r}. "
            f"Choose one: --account {accounts[0]}, or {others}"
        )
    log = found[accounts[0]]
    return explain_decision(log, read_dossier(log, accounts[0], transaction_id, digest))


def _file_lines(path: Path, pack: RulePack, labels: Path | None, feedback_ms: int | None) -> Log:
    """Return the records that scoring a file would put into the log.

    The pack comes first. A label follows its payment by `feedback_ms`.
    """
    activation = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="explain")
    truth = read_truth(labels) if labels and feedback_ms is not None else None

    def lines() -> Iterator[InboundRecord]:
        yield InboundRecord("RulesActivated", to_fields(activation), 0, None)
        pending, clock_ms = LabelFeedbackQueue(feedback_ms or 0), -1
        for number, row in enumerate(read_prepared_rows(path)):
            if row.refusal is not None:
                continue
            if truth is not None:
                payment = admit(row.fields, None)
                if isinstance(payment, Payment):
                    clock_ms = max(clock_ms, payment.event_time_ms)
                    for label in pending.due(clock_ms):
                        yield InboundRecord("FraudConfirmed", to_fields(label), number, None)
                    truth_label = truth.of(number, payment.transaction_id)
                    if truth_label is not None and truth_label.is_fraud:
                        pending.add(payment)
            yield InboundRecord("Transaction", row.fields, number, None)

    return lines


def _system_logs(settings: Settings, transaction_id: str) -> dict[str, Log]:
    logs = kafka_logs(settings)
    log, topic, decoder = logs.reader(), logs.topics.payments_inbound, logs.decoder()
    ends = log.ends(topic)
    with progress("partitions read", len(ends)) as seen:

        def partitions() -> Iterator[Log]:
            for done, (partition, end) in enumerate(ends.items()):
                yield partial(partition_lines, log, topic, partition, end, decoder)
                seen(done + 1)

        return logs_of(partitions(), transaction_id)


def partition_lines(log: Recorded, topic: str, partition: int, end: int, decoder: Decoder) -> Iterator[InboundRecord]:
    """Yield the records of a partition as the fold reads them, up to offset `end`."""
    for record in log.read(topic, partition, end):
        try:
            name, data = decoder.decode(record.value)
        except UnreadableRecord:
            continue  # quarantined: no decision depends on it
        yield InboundRecord(name, data, record.offset, record.timestamp_ms)


def logs_of(logs: Iterable[Log], transaction_id: str) -> dict[str, Log]:
    """Map each account that has a payment with this id to the records of its log that concern it, held in memory."""
    found: dict[str, Log] = {}
    for log in logs:
        for account_id in find_accounts(log, transaction_id):
            lines = list(account_records(log, account_id))
            found[account_id] = lines.copy
    return found


# -- for people -----------------------------------------------------------------------------------------


def show(document: dict[str, Any], out: Console) -> None:
    """Print the explanation as text and a table."""
    when = datetime.fromtimestamp(document["event_time"] / 1000, UTC).isoformat(timespec="milliseconds")
    pack = document["pack"]
    verdict = "flagged" if document["flagged"] else "not flagged"
    out.print(
        f"{document['transaction_id']} of {document['account_id']}, {when}, "
        f"{document['amount_minor']:,} minor units of {document['currency']}",
        markup=False, highlight=False,
    )  # fmt: skip
    out.print(
        f"{verdict}: score {document['score']}, flagged from {pack['flag_at']} "
        f"(pack {pack['name']}@{pack['version']}, {pack['pack_id'][:12]})",
        markup=False, highlight=False,
    )  # fmt: skip
    if document["on_arrival"]["flagged"] != document["flagged"]:
        was = "flagged" if document["on_arrival"]["flagged"] else "not flagged"
        out.print(f"on arrival it was {was}; late payments changed the decision", highlight=False)
    out.print(_table(document["rules"]))
    out.print(_smallest_change_text(document), markup=False, highlight=False)


def _table(rules: list[dict[str, Any]]) -> Table:
    table = Table(
        "rule", "fired", *(Column(name, justify="right") for name in ("value", "from", "distance", "points")), "why"
    )
    for rule in rules:
        fired = {True: "yes", False: "no", None: "elsewhere"}[rule["fired"]]
        numbers = [_number(rule.get(key)) for key in ("value", "threshold", "distance", "points")]
        table.add_row(escape(rule["rule"]), fired, *numbers, escape(_rule_text(rule)))
    return table


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _rule_text(rule: dict[str, Any]) -> str:
    lines = [rule["lacking"]] if rule["lacking"] else []
    if rule["fired"]:
        named = rule["contributing"]
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        lines.append(f"{rule['measure']}: {', '.join(named[-5:])}{more}")
    elif not lines and rule.get("measure"):
        lines.append(rule["measure"])
    lines += [
        f"{each['comparison']}: {each['left']:,} and {each['right']:,}{'' if each['holds'] else ', does not hold'}"
        for each in rule.get("comparisons", [])
    ]
    return "\n".join(lines)


def _smallest_change_text(document: dict[str, Any]) -> str:
    change = document["smallest_change"]
    if change is None:
        return "No single change of amount, time, place or another field was found that reverses the decision."
    result = "cleared it" if document["flagged"] else f"flagged it, by {', '.join(change['rules'])}"
    before, after = (_value(change["field"], change[key]) for key in ("before", "after"))
    return (
        f"The smallest change that would have {result}: {change['field']} {before} -> {after} ({change['step']}; "
        f"then score {change['score']}). Verified by running the fold on the changed log."
    )


def _value(field: str, value: Any) -> str:
    if field == "event_time":
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{value:,}" if isinstance(value, int) else str(value)
