"""`fraudcase audit key`, `heads`, `verify`; `fraudcase export`, `verify`: the audit log and its proofs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson, parse_instant, read_settings
from console.cli.output import fail, report
from console.evidence import verify_pack
from console.evidence.pack import EvidenceExportError, EvidencePackBuilder, RecordSelection
from console.terminal import messages, progress
from console.wiring import bucket, topics
from infra.settings import Settings
from projections.archive.audit import audit
from projections.archive.heads import BadHead, head_key, head_numbers, stored_head
from projections.archive.signing import BadKey, Signer, fingerprint, load_signer

HeadFile = Annotated[
    Path | None,
    typer.Option(
        "--head", help="file with the newest signed head that you have seen, to prove that the log was not rolled back"
    ),
]
PublicKey = Annotated[
    str | None, typer.Option("--public-key", help="public audit key: 64 hexadecimal digits, or a file that holds them")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    area = typer.Typer(no_args_is_help=True, help="Show the audit log's key and signed heads, and verify the log.")
    for command in (key, heads):
        area.command()(command)
    area.command("verify")(verify_archive)
    app.add_typer(area, name="audit")
    app.command()(export)
    app.command()(verify)


def signer_of(settings: Settings) -> Signer:
    """Return the signer with the audit key of this system, or end the command if there is none."""
    try:
        return load_signer(settings.audit_key_source)
    except BadKey as error:
        raise fail(f"{error}. Cure: fraudcase up creates a key; or set FRAUDCASE_AUDIT_KEY") from error


def key(as_json: AsJson = False) -> None:
    """Print the public audit key. Give it to the recipients of evidence packs over a separate channel."""
    public = signer_of(read_settings()).public_key
    if as_json:
        report({"public_key": public.hex(), "fingerprint": fingerprint(public)}, as_json=True)
        return
    sys.stdout.write(public.hex() + "\n")


def heads(
    out: Annotated[Path | None, typer.Option(help="file to write the head to, for a later --head")] = None,
    number: Annotated[int | None, typer.Option(help="number of the head; default: the last")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the last signed head, which fixes the whole log at one time. Keep a copy outside the system."""
    settings = read_settings()
    store = bucket(settings)
    numbers = head_numbers(store)
    chosen = number if number is not None else numbers[-1] if numbers else 0
    try:
        head = stored_head(store, chosen, signer_of(settings).public_key)
    except BadHead as error:
        raise fail(f"head {chosen}: {error}") from error
    if head is None:
        raise fail(
            "there is no such head. The first is signed some seconds after the first record. Check: fraudcase status"
        )
    if out is not None:
        out.write_bytes(store.get(head_key(chosen)) or b"")
    document = {
        "heads": len(numbers), "number": head.number, "log_time_at_ms": head.time_ms, "records": head.records,
        "partitions": len(head.trees), "sha256": head.sha256, "key": head.key,
    }  # fmt: skip
    report(document, as_json=as_json)


def verify_archive(head: HeadFile = None, public_key: PublicKey = None, as_json: AsJson = False) -> None:
    """Check the whole archive against its signed heads. Exit 1 if a check fails."""
    settings = read_settings()
    try:
        known = signer_of(settings).public_key if public_key is None else verify_pack.read_key(public_key)
        seen = None if head is None else head.read_bytes().strip()
    except (verify_pack.PackFault, OSError) as error:
        raise fail(str(error)) from error
    with progress("records checked", None) as counted:
        found = audit(bucket(settings), known, seen, counted)
    last = found.last
    document = {
        "records": found.records, "heads": found.heads, "not_covered_yet": found.uncovered,
        "last_head": 0 if last is None else last.number, "log_time_at_ms": 0 if last is None else last.time_ms,
        "freshness": "unproven: give --head to prove it" if seen is None else "not older than the given head",
        "problems": found.problems if as_json else len(found.problems),
    }  # fmt: skip
    report(document, as_json=as_json)
    if found.problems:
        raise fail("\n".join(found.problems[:20]))


def export(
    out: Annotated[Path, typer.Option(help="zip file to write the pack to")],
    case: Annotated[str | None, typer.Option(help="id of a case to export completely, up to the last head")] = None,
    account: Annotated[
        str | None, typer.Option(help="account whose records to export; completeness is not proved")
    ] = None,
    from_time: Annotated[
        str | None,
        typer.Option(
            "--from", help="start of a time range by Kafka timestamps: 2026-01-31T12:00:00Z, or UTC milliseconds"
        ),
    ] = None,
    to_time: Annotated[str | None, typer.Option("--to", help="end of the time range")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="log to export a time range from; repeat for several; default: all logs")
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(help="what to withhold: FIELD, RecordType.FIELD or RecordType; repeat for several"),
    ] = None,
    since_head: Annotated[
        Path | None, typer.Option(help="file with an earlier head; the pack then proves that the log only grew since")
    ] = None,
) -> None:
    """Export an evidence pack: records with proofs that anybody can check with `verify.py` and the public key."""
    settings = read_settings()
    is_range = from_time is not None or to_time is not None
    if (case is not None) + (account is not None) + is_range != 1:
        raise fail("give exactly one of --case, --account, or a time range (--from and --to)")
    names = topics(settings)
    chosen = tuple(name if name.startswith(settings.prefix) else f"{settings.prefix}{name}" for name in topic or ())
    if unknown := sorted(set(chosen) - set(names.archived_logs)):
        raise fail(f"no such log: {', '.join(unknown)}. Logs: {', '.join(names.archived_logs)}")
    selection = RecordSelection(
        case_id=case, account_id=account, from_ms=parse_instant(from_time), to_ms=parse_instant(to_time), topics=chosen
    )
    try:
        evidence = EvidencePackBuilder(bucket(settings), names, signer_of(settings), redact or ())
        pack = evidence.pack(selection, None if since_head is None else since_head.read_bytes().strip())
        out.write_bytes(pack)
    except (EvidenceExportError, BadHead, OSError) as error:
        raise fail(str(error)) from error
    messages.print(f"{out}: {len(pack):,} bytes. Check it: fraudcase verify {out} --public-key …", highlight=False)


def verify(
    pack: Annotated[Path, typer.Argument(help="evidence pack, a zip file")],
    public_key: PublicKey = None,
    head: HeadFile = None,
) -> None:
    """Check an evidence pack. No server is needed. Exit 1 if a check fails, 2 if the pack's origin is not proved."""
    arguments = [str(pack)]
    for name, value in (("--public-key", public_key), ("--head", head)):
        arguments += [] if value is None else [name, str(value)]
    code = verify_pack.main(arguments)
    if code:
        raise typer.Exit(code)
