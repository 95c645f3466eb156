"""Texts of errors that enter the log keep the wording with which they were first recorded."""

import pytest

from domain.record_types import from_fields

COMMAND = {
    "account_id": "acct-1", "case_id": "c", "command_id": "k", "actor": "ana", "seen_sequence": 1, "requested_at_ms": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "field", "recorded"),
    [
        ("AddNote", "attachments", "domain.case_commands.Attachment() argument after ** must be a mapping, not str"),
        ("AbsorbCase", "flags", "domain.case_commands.MergedFlag() argument after ** must be a mapping, not str"),
        ("AbsorbCase", "amounts", "domain.case_commands.Amount() argument after ** must be a mapping, not str"),
        ("CaseClosed", "payments", "domain.case_events.FlaggedPayment() argument after ** must be a mapping, not str"),
        ("CommandRejected", "missed", "domain.case_events.MissedEvent() argument after ** must be a mapping, not str"),
        ("RiskFlagged", "reasons", "'str' object is not a mapping"),
    ],
)
def test_item_of_a_wrong_type_is_described_as_release_0_1_0_described_it(name: str, field: str, recorded: str) -> None:
    with pytest.raises(TypeError) as caught:
        from_fields(name, {**COMMAND, field: ["text"]})
    assert str(caught.value) == recorded
