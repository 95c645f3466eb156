"""The list of bugs: each is an exact edit of one file, with the tests that must fail with it."""

from typing import NamedTuple


class Bug(NamedTuple):
    """A deliberate bug: `old` occurs exactly once in `file`; with `new` in its place, at least one of `tests` fails."""

    name: str
    says: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


CASE, COMMANDS, ENGINES = (
    "tests/domain/cases/test_case.py",
    "tests/domain/cases/test_case_commands.py",
    "tests/domain/cases/test_engines.py",
)
RISK, DUE = "tests/domain/risk/test_risk.py", "tests/domain/cases/test_case_due.py"
GOLDEN = f"{ENGINES}::test_engine_emits_its_golden_bytes"

BUGS = (
    Bug(
        "fold-reads-the-clock", "a case opens when the machine says so, not when the payment was made",
        "domain/cases/flags.py", "opened_at_ms=record.event_time,",
        'opened_at_ms=__import__("time").time_ns() // 1_000_000,',
        (f"{CASE}::test_missed_deadline_escalates_at_the_tick_and_not_before", GOLDEN),
    ),
    Bug(
        "fold-draws-lots", "the id of a case is random",
        "domain/cases/events.py", 'return str(uuid5(CASES, f"{typology}\\x1f{first_flag_id}{after}"))',
        'return str(__import__("uuid").uuid4())',
        (f"{CASE}::test_the_first_flag_opens_a_case_and_further_ones_join_it",),
    ),
    Bug(
        "set-order", "the rules of a flag stand in the order of a set, another one in each process",
        "domain/cases/flags.py", "else tuple([reason.rule for reason in reasons])",
        "else tuple({reason.rule for reason in reasons})",
        (f"{CASE}::test_rules_keep_the_order_of_their_reasons",),
    ),
    Bug(
        "order-of-a-heap", "accounts that are due come in the order of their deadlines, not of their names",
        "domain/cases/due.py", "return sorted(taken)", "return taken",
        (f"{DUE}::test_an_account_is_due_at_the_time_that_was_put_last",),
    ),
    Bug(
        "dropped-event", "a case whose first flag is grave enough is not escalated",
        "domain/cases/flags.py",
        "return [*events, first, *escalation_of_flag(record, state.account_id, open_case(None, first))]",
        "return [*events, first]",
        (f"{CASE}::test_a_case_escalates",),
    ),
    Bug(
        "double-apply", "the last flag of an account, delivered again, is linked again",
        "domain/cases/fold.py", "if record.sequence <= state.risk_sequence:",
        "if record.sequence < state.risk_sequence:",
        (f"{CASE}::test_redelivered_flag_adds_nothing_even_after_other_flags",),
    ),
    Bug(
        "answered-twice", "a command that is delivered again is carried out again",
        "domain/cases/answers.py", "if command.command_id in state.answered:", "if not state.account_id:",
        (f"{CASE}::test_an_analyst_escalates_and_is_answered_once",),
    ),
    Bug(
        "flags-after-a-gap", "a flag is taken although the one before it has not come",
        "domain/cases/fold.py",
        "record.sequence > state.risk_sequence + 1", "record.sequence > state.risk_sequence + 2",
        (f"{CASE}::test_a_flag_after_a_gap_waits",),
    ),
    Bug(
        "no-sequence-check", "an event may follow any other",
        "domain/cases/state.py", "if event.sequence != case.sequence + 1:", "if event.sequence < 1:",
        (f"{CASE}::test_a_broken_log_is_an_error",),
    ),
    Bug(
        "float-money", "amounts are divided as floats",
        "domain/cases/escalation.py", "major = amount_minor // 10 ** DECIMALS[each]",
        "major = amount_minor / 10 ** DECIMALS[each]",
        (GOLDEN,),
    ),
    Bug(
        "window-without-its-edge", "a payment exactly as old as the window is left out",
        "domain/risk/families/velocity.py",
        "first = bisect_left(history.times, payment.event_time_ms - window_ms, 0, index + 1)",
        "first = bisect_left(history.times, payment.event_time_ms - window_ms + 1, 0, index + 1)",
        ("tests/domain/risk/test_families.py::test_family_fires_at_its_threshold",),
    ),
    Bug(
        "horizon-a-millisecond-short", "a payment that is just in time is refused",
        "domain/risk/history.py", "return payment.event_time_ms < self.latest_ms - HORIZON_MS",
        "return payment.event_time_ms <= self.latest_ms - HORIZON_MS",
        (f"{RISK}::test_payment_older_than_the_horizon_is_refused",),
    ),
    Bug(
        "duplicates-count", "the same payment again is decided again",
        "domain/risk/fold.py", "if known and history.holds(payment):", "if known and not history.holds(payment):",
        (f"{RISK}::test_duplicate_adds_nothing_and_other_content_is_decided_and_reported",),
    ),
    Bug(
        "late-payments-restate-nothing", "what a late payment changes about later ones is not said",
        "domain/risk/fold.py", "outputs += self._restate(history, index)", "self._restate(history, index)",
        (f"{RISK}::test_late_payment_restates_only_the_decisions_that_it_changes",),
    ),
    Bug(
        "clock-goes-back", "an older tick is believed",
        "domain/cases/fold.py", "if tick.now_ms <= self._now_ms:", "if tick.now_ms < 0:",
        (f"{CASE}::test_tick_with_an_earlier_time_is_ignored",),
    ),
    Bug(
        "decision-changes-the-state", "what a case would be is tried out on the case itself",
        "domain/cases/state.py",
        "case = replace(case, value_minor=dict(case.value_minor), linked=dict(case.linked), recent=[*case.recent])",
        "pass",
        (f"{DUE}::test_decide_does_not_change_the_state_that_it_reads",),
    ),
    Bug(
        "fields-out-of-order", "a record that is made of fields in order has two of them in each other's place",
        "domain/cases/linked_flag.py", "        event.terminal_id,\n        event.device_id,\n",
        "        event.device_id,\n        event.terminal_id,\n",
        (f"{CASE}::test_a_case_of_entity_flags_is_closed_with_its_payments",),
    ),
    Bug(
        "linked-out-of-order", "the event of a linked flag has two fields in each other's place",
        "domain/cases/flags.py", "        record.terminal_id,\n        record.device_id,\n",
        "        record.device_id,\n        record.terminal_id,\n",
        (GOLDEN,),
    ),
    Bug(
        "old-state-misread", "flags of a state entry that kept scores and payments apart lose their payments",
        "domain/cases/fold.py", "payments.get(key)", "None",
        (f"{COMMANDS}::test_state_with_separate_scores_and_payments_is_read",),
    ),
    Bug(
        "stale-version-accepted", "a command is carried out although the case has moved on",
        "domain/cases/answers.py", "if command.seen_sequence != case.sequence:",
        "if command.seen_sequence > case.sequence:",
        (f"{CASE}::test_refused_command_gives_the_reason",),
    ),
    Bug(
        "two-eyes", "the value from which a second person must agree is itself left out",
        "domain/cases/answers.py", "if value >= FOUR_EYES_FROM_VALUE_MAJOR:", "if value > FOUR_EYES_FROM_VALUE_MAJOR:",
        (COMMANDS,),
    ),
    Bug(
        "old-engine-changed", "what the second engine does otherwise, the first one does too",
        "domain/cases/flags.py", "if engine.weighs_restatements:", "if engine.number:",
        (GOLDEN,),
    ),
    Bug(
        "counted-by-another", "a restatement changes a case's flags by what the flag's account knew of it",
        "projections/views/case_view.py", "more = event.flags_change\n", "more = None\n",
        (f"{ENGINES}::test_third_engine_records_changes_in_the_case_that_holds_the_flag",),
    ),
    Bug(
        "engine-forgotten", "after a restart a partition is decided by the first engine again",
        "domain/engines.py", "return {ENGINE_KEY: str(self.now.number).encode()} if changed else {}",
        "return {} if changed else {}",
        (f"{ENGINES}::test_the_state_keeps_the_engine",),
    ),
    Bug(
        "digest-leaves-out-a-field", "two histories of other merchants have the same digest",
        "domain/digest.py", 'return canonical_json({"type": type(event).__name__, **data})',
        'return canonical_json({"type": type(event).__name__, **data, "merchant_id": None})',
        ("tests/domain/test_digest.py::test_every_other_change_changes_the_digest",),
    ),
    Bug(
        "quarantine-drops", "a record that the case job cannot decide on is passed over",
        "stream/processors.py", "emissions.append(self._quarantine(record, events))", "emissions += []",
        (f"{ENGINES}::test_job_keeps_its_engine_and_quarantines_unknown_ones",),
    ),
    Bug(
        "mask-misses", "the shortest card numbers stay in what people write",
        "domain/masking.py", "if len(digits) >= SHORTEST and is_luhn_valid(digits):",
        "if len(digits) > SHORTEST and is_luhn_valid(digits):",
        ("tests/domain/test_masking.py",),
    ),
    Bug(
        "view-without-its-condition", "an overtaken writer of views writes over what the other one stored",
        "projections/views/case_table.py", "if (stored.sequence if stored else 0) == before:", "if before >= 0:",
        (f"{CASE}::test_view_is_stored_only_over_its_base_version",),
    ),
    Bug(
        "archive-keeps-redelivered", "a case event that was delivered again enters the archive again",
        "projections/archive/worker.py", "if content == seen.get(identity, self._stored.get(identity)):",
        "if content == seen.get(identity):",
        (
            "tests/projections/archive/test_audit.py",
            "tests/acceptance/test_projections.py::test_redelivered_case_events_do_not_enter_the_archive_again",
        ),
    ),
    Bug(
        "approval-not-noted", "who approved a rule pack is not noted",
        "console/rules/store.py",
        'self._log(session, row, "approved", actor, {"whatif_run": tried.run_id} if tried else None)',
        "session.flush()",
        ("tests/console/test_control.py::test_a_pack_becomes_active_after_a_second_person_approved_it",),
    ),
    Bug(
        "every-partition-but-one", "after a crash the partitions that lack a rule pack are not written to",
        "console/rules/engines.py", "written = log.write(activation(engine, begun_by), since)",
        "written = log.write(activation(engine, begun_by), since) if last.actor == actor else 0",
        (f"{ENGINES}::test_after_a_crash_the_same_command_writes_only_what_is_missing",),
    ),
)  # fmt: skip
"""Small ones, as they happen; none is found by types or lint alone."""
QUICK = ("stale-version-accepted", "digest-leaves-out-a-field")
"""Those that `make test` plants; `make prove` plants all."""
