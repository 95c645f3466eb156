"""The generator: who pays in one run pays in another, and no payment of one is taken for one of the other."""

from itertools import islice
from typing import Any

from domain.masking import mask_card_numbers
from generator.traffic import GeneratedPayment, Traffic, TrafficOptions, run_of


def payments(**options: Any) -> list[GeneratedPayment]:
    return list(islice(Traffic(TrafficOptions(accounts=50, **options)), 2_000))


def test_another_run_is_of_the_same_people_and_has_ids_of_its_own() -> None:
    first, second = (payments(start_ms=start, run=run_of(start)) for start in (1_767_225_600_000, 1_767_225_600_001))
    ids = [{each.transaction["transaction_id"] for each in run} for run in (first, second)]
    assert [len(each) for each in ids] == [2_000, 2_000]
    assert not ids[0] & ids[1]
    homes = [
        {each.transaction["account_id"]: each.transaction["home_latitude"] for each in run} for run in (first, second)
    ]
    assert homes[0] == homes[1]


def test_without_a_name_for_the_run_the_same_seed_is_the_same_payments() -> None:
    assert payments() == payments()
    assert payments()[0].transaction["transaction_id"].count("-") == 2


def test_the_name_of_a_run_cannot_be_taken_for_a_card_number() -> None:
    for start_ms in range(1_767_225_600_000, 1_767_225_610_000, 7):
        assert run_of(start_ms).isalpha()
    made = payments(run=run_of(1_767_225_600_000))
    assert [mask_card_numbers(each.transaction["transaction_id"]) for each in made] == [
        each.transaction["transaction_id"] for each in made
    ]
