"""`fraudcase erase`, `subject show`, `canary`: erasure of personal data, and the search for remaining copies."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from console.cli.options import AsJson, read_settings
from console.cli.output import errors_as_messages, fail, report
from console.display.formats import counted
from console.payments.attributes import payments_of
from console.privacy.vault import SETTLED_S, SubjectKeyHistory
from console.system.canary import CanaryTooShort, SearchedStores, TextLocation, search
from console.terminal import messages
from console.times import iso_time
from console.wiring import control_database, kafka_logs, object_store, table_store, vault
from domain.masking import mask_card_numbers

Subject = Annotated[str, typer.Argument(help="account, or intake/RUN for refused rows without an account")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(erase)
    app.command()(canary)
    subject = typer.Typer(no_args_is_help=True, help="Show the subjects whose personal data is sealed.")
    subject.command("show")(show)
    app.add_typer(subject, name="subject")


def erase(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="SUBJECT...", help="accounts to erase; intake/RUN for refused rows without an account"),
    ],
    actor: Annotated[str, typer.Option("--actor", help="name of the person who erases")],
    reason: Annotated[
        str, typer.Option("--reason", help="reason, e.g. the number of a request; no personal data")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Destroy the keys of accounts, so that their sealed personal data cannot be read again, here or in any copy.

    The command ends when no running process holds the keys. Payments, decisions and cases remain and replay as before.
    """
    if not actor.strip():
        raise fail("--actor is empty. Give the name of the person who erases")
    with errors_as_messages():
        erased = vault(read_settings()).erase(subjects, actor, mask_card_numbers(reason))
    for each in erased:
        if each.key_id is None:
            messages.print(f"{each.subject}: no data is sealed for this subject. Check the name", highlight=False)
    time.sleep(SETTLED_S)
    keys = sum(each.key_id is not None for each in erased)
    report({"subjects": len(erased), "keys_destroyed": keys, "erased_at_ms": erased[0].at_ms}, as_json=as_json)


def show(
    subject: Subject,
    payments: Annotated[
        bool, typer.Option("--payments", help="also show the sealed attributes of its payments")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the key of an account and its erasures. With --payments, show the unsealed attributes of its payments."""
    settings = read_settings()
    with errors_as_messages():
        keys = vault(settings)
        document = _document(keys.known(subject))
        if payments:
            document["payments"] = payments_of(kafka_logs(settings), keys, subject)
    if as_json:
        report(document, as_json=True)
        return
    for each in document.pop("erasures"):
        sys.stdout.write(f"erased {iso_time(each['at_ms'])} by {each['actor']} {each['reason']}".strip() + "\n")
    for payment in document.pop("payments", ()):
        attributes = ", ".join(f"{name}={value!r}" for name, value in payment["attributes"].items())
        sys.stdout.write(f"{payment['transaction_id']}  {attributes}\n")
    report(document, as_json=False)


def _document(known: SubjectKeyHistory) -> dict[str, Any]:
    erasures = [
        {"at_ms": each.at_ms, "actor": each.actor, "reason": each.reason, "generation": each.generation}
        for each in known.erasures
    ]
    return {
        "subject": known.subject,
        "has_key": known.generation is not None,
        "generation": known.generation,
        "erasures": erasures,
    }


def canary(
    text: Annotated[str, typer.Argument(help="text that must not be found: a name, an address, part of a note")],
    also: Annotated[
        list[Path] | None,
        typer.Option(help="other file or folder to search, e.g. an export or a backup; repeat for several"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search all stored data for a text, raw and decoded. Exit 1 and list the places if the text is found."""
    try:
        with errors_as_messages():
            settings = read_settings()
            stores = SearchedStores(
                bootstrap=settings.kafka_bootstrap,
                objects=object_store(settings),
                tables=table_store(settings),
                database=control_database(settings),
                home=settings.home,
            )
            found, counts = search(stores, text, also or ())
    except CanaryTooShort as error:
        raise fail(str(error)) from error
    report(
        {"found": [_location_fields(place) for place in found] if as_json else len(found), **counts}, as_json=as_json
    )
    if found:
        shown = "\n".join(f"  {place.store}  {place.where}" for place in found[:50])
        raise fail(f"the text was found in {counted(len(found), 'place')}:\n{shown}")


def _location_fields(place: TextLocation) -> dict[str, str]:
    return {"store": place.store, "where": place.where}
