"""`fraudcase explain`: why a payment was flagged or not, and what would have turned the decision."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from console import explain as explaining
from console import files
from console.explain import Line, Log, NotExplained
from console.files import BadFile
from console.rule_files import load_pack
from console.stack_commands import AsJson
from console.work import explained, fail, progress, topics
from domain.events import RulesActivated, to_fields
from domain.rules import DEFAULT, BadRulePack, RulePack
from infra.settings import Settings
from projections.log import KafkaLog
from schemas.codec import Decoder, Unreadable
from schemas.registry import Registry

PLAIN_WIDTH = 160
"""Columns where no terminal says how wide it is."""


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(explain)


def explain(
    transaction_id: Annotated[str, typer.Argument(help="the payment's id")],
    transactions: Annotated[
        Path | None, typer.Option(help="a file of payments to look in, instead of the running system's log")
    ] = None,
    rules: Annotated[str, typer.Option(help="with --transactions: a pack's name, or a file")] = DEFAULT.name,
    account: Annotated[str | None, typer.Option(help="where several accounts have a payment of this id")] = None,
    digest: Annotated[str, typer.Option(help="the start of a content digest, where an id was used again")] = "",
    as_json: AsJson = False,
) -> None:
    """Each rule's value, threshold and distance for a payment, and the smallest change that turns the decision."""
    try:
        with explained():
            log, accounts = (
                _in_file(transactions, load_pack(rules), transaction_id)
                if transactions
                else _in_system(Settings(), transaction_id)
            )
            document = _explain(log, accounts, transaction_id, account, digest)
    except (NotExplained, BadFile, BadRulePack) as error:
        raise fail(str(error)) from error
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        out = Console()
        show(document, out if out.is_terminal else Console(width=PLAIN_WIDTH))


def _explain(log: Log, accounts: list[str], transaction_id: str, account: str | None, digest: str) -> dict[str, Any]:
    wanted = [each for each in accounts if account in (None, each)]
    if not wanted:
        raise NotExplained(f"there is no payment {transaction_id!r}{f' of account {account!r}' if account else ''}")
    if len(wanted) > 1:
        raise NotExplained(f"{len(wanted)} accounts have a payment {transaction_id!r}. Cure: --account {wanted[0]} or"
                           f" {', '.join(wanted[1:10])}")  # fmt: skip
    return explaining.explained(log, explaining.read_dossier(log, wanted[0], transaction_id, digest))


def _in_file(path: Path, pack: RulePack, transaction_id: str) -> tuple[Log, list[str]]:
    activation = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="explain")

    def lines() -> Iterator[Line]:
        yield Line("RulesActivated", to_fields(activation), 0, None)
        for number, row in enumerate(files.read_rows(path), start=1):
            if row.refusal is None:
                yield Line("Transaction", row.fields, number, None)

    accounts = explaining.find_accounts(lines, transaction_id)
    relevant = [line for line in lines() if line.name != "Transaction" or line.data["account_id"] in accounts]
    return lambda: relevant, accounts


def _in_system(settings: Settings, transaction_id: str) -> tuple[Log, list[str]]:
    """The partition that holds the payment; if several accounts have one of this id, all of theirs."""
    log, topic = KafkaLog(settings.kafka_bootstrap), topics(settings).payments_inbound
    decoder = Decoder(Registry(settings.registry_url).schema_text)
    ends = log.ends(topic)

    def lines(partition: int) -> Iterator[Line]:
        for record in log.read(topic, partition, ends[partition]):
            try:
                name, data = decoder.decode(record.value)
            except Unreadable:
                continue  # quarantined: no decision rests on it
            yield Line(name, data, record.offset, record.timestamp_ms)

    accounts: list[str] = []
    relevant: list[Line] = []
    with progress("partitions read", len(ends)) as seen:
        for done, partition in enumerate(ends):
            found = explaining.find_accounts(lambda partition=partition: lines(partition), transaction_id)  # type: ignore[misc]
            if found:
                relevant += [
                    line for line in lines(partition) if line.name != "Transaction" or line.data["account_id"] in found
                ]
            accounts += found
            seen(done + 1)
    return lambda: relevant, accounts


# -- for people -----------------------------------------------------------------------------------------


def show(document: dict[str, Any], out: Console) -> None:
    """The explanation as text and a table."""
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
        out.print(f"on arrival it was {was}: late payments have changed that", highlight=False)
    out.print(_table(document["rules"]))
    out.print(_told(document), markup=False, highlight=False)


def _table(rules: list[dict[str, Any]]) -> Table:
    table = Table(
        "rule", "fired", *(Column(name, justify="right") for name in ("value", "from", "distance", "points")), "why"
    )
    for rule in rules:
        fired = {True: "yes", False: "no", None: "elsewhere"}[rule["fired"]]
        numbers = [_number(rule.get(key)) for key in ("value", "threshold", "distance", "points")]
        table.add_row(escape(rule["rule"]), fired, *numbers, escape(_why(rule)))
    return table


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _why(rule: dict[str, Any]) -> str:
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


def _told(document: dict[str, Any]) -> str:
    change = document["smallest_change"]
    if change is None:
        return "No single change of amount, time, place or a field was found that turns the decision."
    turned = "cleared it" if document["flagged"] else f"flagged it, by {', '.join(change['rules'])}"
    before, after = (_value(change["field"], change[key]) for key in ("before", "after"))
    return (
        f"The smallest change that would have {turned}: {change['field']} {before} -> {after} ({change['step']}; "
        f"then score {change['score']}). Verified by running the fold on the changed log."
    )


def _value(field: str, value: Any) -> str:
    if field == "event_time":
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{value:,}" if isinstance(value, int) else str(value)
