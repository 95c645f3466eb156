"""Payments sent to the real stack, with the wait for their answers."""

from typing import Any

from console.payments.intake import AnswerTracker, open_intake
from console.wiring import intake_parts, kafka_logs
from generator.traffic import Traffic, TrafficOptions
from infra.settings import Settings

BURST = 6


def send(settings: Settings, payments: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Send payments and wait until each is answered; return their log positions in payments.inbound."""
    answers = AnswerTracker(kafka_logs(settings))
    places = append(settings, payments)
    answers.wait_for(places)
    return places


def append(settings: Settings, payments: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Send payments without waiting for answers; return their log positions in payments.inbound."""
    intake, sent = open_intake(intake_parts(settings))
    for payment in payments:
        intake.send(payment, "test")
    intake.flush()
    return sent.places


def burst(account: str, start_ms: int) -> list[dict[str, Any]]:
    """Build enough payments within a minute for the velocity rule."""
    like = next(iter(Traffic(TrafficOptions(seed=4, accounts=1)))).transaction
    return [
        {**like, "account_id": account, "transaction_id": f"{account}-{number}", "event_time": start_ms + number * 1000,
         "terminal_id": f"{account}-till"}
        for number in range(BURST)
    ]  # fmt: skip
