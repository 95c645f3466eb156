"""The two rule packs of this package: `default`, which a new system activates, and `three`, for comparisons."""

from typing import Final

from domain.durations import DAY_MS, HOUR_MS, MINUTE_MS
from domain.risk.families.account_emptying import AccountEmptying
from domain.risk.families.amount_spike import AmountSpike
from domain.risk.families.card_testing import CardTesting
from domain.risk.families.entity_risk import EntityRisk
from domain.risk.families.expression import Expression
from domain.risk.families.far_from_home import FarFromHome
from domain.risk.families.impossible_travel import ImpossibleTravel
from domain.risk.families.new_country import NewCountry
from domain.risk.families.new_device import NewDevice
from domain.risk.families.unusual_hour import UnusualHour
from domain.risk.families.velocity import Velocity
from domain.risk.packs import RulePack

THREE: Final = RulePack(
    name="three",
    version=1,
    rules=(
        Velocity(name="velocity", typology="rapid_spending", points=600, window_ms=60_000, at_least=5),
        AmountSpike(
            name="amount_spike", typology="unusual_amount", points=500,
            history=50, minimum_history=5, sigmas=5, minimum_minor=10_000, ratio_percent=300,
        ),
        ImpossibleTravel(
            name="impossible_travel", typology="stolen_card", points=700,
            minimum_m=300_000, speed_kmh=900, within_ms=DAY_MS,
        ),
    ),
)  # fmt: skip
"""Three rules only: the pack that benchmarks compare rates with."""

DEFAULT: Final = RulePack(
    name="default",
    version=3,
    flag_at=400,
    rules=(
        *THREE.rules,
        CardTesting(
            name="card_testing", typology="card_testing", points=600, severity="high", reason_code="SMALL_AMOUNTS",
            window_ms=2 * MINUTE_MS, at_least=5, at_most_minor=500,
        ),
        AccountEmptying(
            name="account_emptying", typology="account_takeover", points=450, severity="high", reason_code="OUTFLOW",
            window_ms=DAY_MS, lookback_ms=35 * DAY_MS, minimum_history=10, minimum_minor=100_000, ratio_percent=1_000,
            minimum_span_ms=3 * DAY_MS,
        ),
        FarFromHome(
            name="far_from_home", typology="stolen_card", points=200, severity="low", reason_code="FAR_FROM_HOME",
            minimum_m=500_000, channels=("ECOM",),
        ),
        NewDevice(
            name="new_device", typology="account_takeover", points=200, severity="low", reason_code="NEW_DEVICE",
            lookback_ms=35 * DAY_MS, minimum_history=5,
        ),
        NewCountry(
            name="new_country", typology="stolen_card", points=250, severity="low", reason_code="NEW_COUNTRY",
            lookback_ms=35 * DAY_MS, minimum_history=5,
        ),
        UnusualHour(
            name="unusual_hour", typology="account_takeover", points=150, severity="low", reason_code="UNUSUAL_HOUR",
            history=50, minimum_history=20, radius_ms=2 * HOUR_MS, at_least_permille=1_000,
        ),
        Expression(
            name="small_then_large", typology="card_testing", points=400, reason_code="TESTED_THEN_USED",
            value="amount_minor > 50_000 and previous_amount_minor < 100 and previous_amount_minor >= 0",
        ),
        EntityRisk(
            name="risky_device", typology="known_fraud", severity="high",
            points='if(confirmed_accounts(device, "35d") >= 2, 600, 250)', reason_code="DEVICE_FRAUD",
            by="device", window_ms=35 * DAY_MS, at_least=1,
        ),
        EntityRisk(
            name="risky_card", typology="known_fraud", points="250", severity="high", reason_code="CARD_FRAUD",
            by="card", window_ms=14 * DAY_MS, at_least=1,
        ),
        EntityRisk(
            name="risky_terminal", typology="known_fraud", points=400, reason_code="TERMINAL_FRAUD",
            by="terminal", window_ms=14 * DAY_MS, at_least=3, minimum_accounts=3,
        ),
        EntityRisk(
            name="risky_merchant", typology="known_fraud", points="150", severity="low", reason_code="MERCHANT_FRAUD",
            by="merchant", window_ms=7 * DAY_MS, at_least=3, minimum_accounts=3,
        ),
    ),
)  # fmt: skip
"""The pack that a new system starts with: `fraudcase up` writes its activation into the log.

It has rules of every family that needs no lists. A new device, goods sent far away and an unusual hour are common in
honest streams, so these rules flag only together with others. The same holds for confirmed frauds of the same card, of
one account on the same device, or at a large merchant: most payments there are honest, whatever the number of frauds,
so these points do not grow with it. Frauds of several accounts at one terminal, or on one device, flag alone.
"""
