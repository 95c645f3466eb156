"""The traffic generator: every run has the same accounts, and no two named runs share a payment id."""

from itertools import islice
from typing import Any

from domain.masking import mask_card_numbers
from generator.traffic import GeneratedPayment, Traffic, TrafficOptions, run_of


def payments(**options: Any) -> list[GeneratedPayment]:
    return list(islice(Traffic(TrafficOptions(accounts=50, **options)), 2_000))


def test_another_run_has_the_same_accounts_and_its_own_ids() -> None:
    first, second = (payments(start_ms=start, run=run_of(start)) for start in (1_767_225_600_000, 1_767_225_600_001))
    ids = [{each.transaction["transaction_id"] for each in run} for run in (first, second)]
    assert [len(each) for each in ids] == [2_000, 2_000]
    assert not ids[0] & ids[1]
    homes = [
        {each.transaction["account_id"]: each.transaction["home_latitude"] for each in run} for run in (first, second)
    ]
    assert homes[0] == homes[1]


def test_unnamed_runs_with_equal_seeds_have_equal_payments() -> None:
    assert payments() == payments()
    assert payments()[0].transaction["transaction_id"].count("-") == 2


def test_run_name_cannot_be_masked_as_a_card_number() -> None:
    for start_ms in range(1_767_225_600_000, 1_767_225_610_000, 7):
        assert run_of(start_ms).isalpha()
    made = payments(run=run_of(1_767_225_600_000))
    assert [mask_card_numbers(each.transaction["transaction_id"]) for each in made] == [
        each.transaction["transaction_id"] for each in made
    ]
