"""Figures of `fraudcase score` on the quality of decisions, mostly by scikit-learn. Defined in docs/scoreboard.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from console.scoring.run import NEVER, ScoredPayments, Texts, Truths
from domain.durations import DAY_MS

TOP: Final = 100
"""Number of cards that can be checked in a day."""
TRAINING_DAYS: Final = 7
"""The handbook's baseline knows the frauds of its seven training days and later ones, but no earlier ones."""


@dataclass(frozen=True, slots=True)
class ScoringWindow:
    """Days to score, both included, counted from 1970-01-01 in UTC."""

    first_day: int
    last_day: int

    @property
    def days(self) -> int:
        """Return the number of days."""
        return self.last_day - self.first_day + 1


def window_of(scored: ScoredPayments) -> ScoringWindow:
    """Return the window from the first to the last day with payments."""
    if not scored.time_ms.size:
        return ScoringWindow(0, 0)
    return ScoringWindow(int(scored.time_ms.min()) // DAY_MS, int(scored.time_ms.max()) // DAY_MS)


def select_window(
    scored: ScoredPayments, window: ScoringWindow, excluded_after_days: int | None = None
) -> ScoredPayments:
    """Return the payments of a window; with `excluded_after_days`, without those of cards known as compromised.

    As in the handbook's `get_train_test_set`, a card is known on a day if it has a fraud in the seven training days
    before the delay, or a later fraud whose label has arrived by that day.
    """
    day = scored.time_ms // DAY_MS
    kept: Truths = (day >= window.first_day) & (day <= window.last_day)
    if excluded_after_days is not None:
        first_trained = window.first_day - excluded_after_days - TRAINING_DAYS
        known_from: dict[str, int] = {}
        for place in np.flatnonzero(scored.fraud & (day >= first_trained)):
            known = int(day[place]) + excluded_after_days + 1
            known_from[scored.card[place]] = min(known, known_from.get(scored.card[place], known))
        for place in np.flatnonzero(kept):
            kept[place] = day[place] < known_from.get(scored.card[place], day[place] + 1)
    return scored.where(kept)


def figures(scored: ScoredPayments, window: ScoringWindow) -> dict[str, Any]:
    """Return the figures of the payments of a window; a figure without a denominator is None."""
    groups = detection_delays(scored)
    return {
        "transactions": int(scored.time_ms.size),
        "fraud": int(scored.fraud.sum()),
        "days": window.days,
        "flagged": int(scored.flagged.sum()),
        **_decision_figures(scored.fraud, scored.flagged),
        **_ranking_figures(scored),
        "card_precision_100": card_precision(scored),
        "alerts_per_day": float(scored.flagged.sum()) / window.days,
        "time_to_detect_s": _median_s([delay for delay in groups.values() if delay is not None]),
        "compromises": len(groups),
        "compromises_detected": sum(delay is not None for delay in groups.values()),
        "on_arrival": {
            "flagged": int(scored.flagged_first.sum()),
            **_decision_figures(scored.fraud, scored.flagged_first),
        },
        "scenarios": scenarios(scored),
    }


def _decision_figures(fraud: Truths, flagged: Truths) -> dict[str, float | None]:
    return {
        "precision": float(precision_score(fraud, flagged)) if flagged.any() else None,
        "recall": float(recall_score(fraud, flagged)) if fraud.any() else None,
    }


def _ranking_figures(scored: ScoredPayments) -> dict[str, float | None]:
    if scored.fraud.all() or not scored.fraud.any():
        return {"auc_roc": None, "average_precision": None}
    return {
        "auc_roc": float(roc_auc_score(scored.fraud, scored.score)),
        "average_precision": float(average_precision_score(scored.fraud, scored.score)),
    }


def card_precision(scored: ScoredPayments, top: int = TOP) -> float | None:
    """Return the handbook's card precision top-k: the mean over days of the fraction of frauds among checked cards.

    Each day the `top` cards with the riskiest payment are checked; equal scores are ordered by card name. A card found
    to have a fraud is not checked on later days. Fewer cards than `top` leave checks unused.
    """
    found: set[str] = set()
    shares = []
    for riskiest, compromised in _cards_by_day(scored):
        cards = sorted((card for card in riskiest if card not in found), key=lambda card: (-riskiest[card], card))
        caught = compromised.intersection(cards[:top])
        found |= caught
        shares.append(len(caught) / top)
    return float(np.mean(shares)) if shares else None


def _cards_by_day(scored: ScoredPayments) -> Iterator[tuple[dict[str, int], set[str]]]:
    """Yield, for each day with payments, each card's highest score, and the cards with a fraud."""
    days = scored.time_ms // DAY_MS
    for day in np.unique(days):
        riskiest: dict[str, int] = {}
        compromised: set[str] = set()
        for place in np.flatnonzero(days == day):
            card = scored.card[place]
            riskiest[card] = max(riskiest.get(card, 0), int(scored.score[place]))
            if scored.fraud[place]:
                compromised.add(card)
        yield riskiest, compromised


def split_scenario(scenario: str) -> tuple[str, str]:
    """Return the name and the campaign of a scenario: "FRAUD|F02|g1" is campaign g1 of FRAUD|F02; most have none."""
    parts = scenario.split("|")
    return "|".join(part for part in parts[:2] if part), "|".join(parts[2:])


def detection_delays(scored: ScoredPayments) -> dict[tuple[str, str], int | None]:
    """Return milliseconds from each campaign's first fraud to the first flag on one of its frauds; None without a
    flag.

    Without campaigns, an account's frauds of one scenario form a group.
    """
    begun: dict[tuple[str, str], int] = {}
    flagged: dict[tuple[str, str], int] = {}
    for place in np.flatnonzero(scored.fraud):
        name, campaign = split_scenario(scored.scenario[place])
        group = name, campaign or scored.account[place]
        begun[group] = min(int(scored.time_ms[place]), begun.get(group, int(scored.time_ms[place])))
        at_ms = int(scored.flagged_at_ms[place])
        if at_ms != NEVER:
            flagged[group] = min(at_ms, flagged.get(group, at_ms))
    return {group: flagged[group] - at_ms if group in flagged else None for group, at_ms in begun.items()}


def _median_s(delays_ms: list[int]) -> float | None:
    return float(np.median(delays_ms)) / 1000 if delays_ms else None


def scenarios(scored: ScoredPayments) -> dict[str, dict[str, Any]]:
    """Return, by scenario, the numbers of payments, frauds and flags, and the fraction of frauds flagged."""
    of_row: Texts = np.array([split_scenario(each) for each in scored.scenario] or np.empty((0, 2)), dtype=object)
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set(of_row[:, 0]) - {""}):
        here = of_row[:, 0] == name
        campaigns = set(of_row[here, 1]) - {""}
        found[name] = {
            "payments": int(here.sum()),
            "fraud": int(scored.fraud[here].sum()),
            "flagged": int(scored.flagged[here].sum()),
            "recall": _decision_figures(scored.fraud[here], scored.flagged[here])["recall"],
        }
        if campaigns:
            caught = set(of_row[here & scored.flagged, 1])
            found[name] |= {"campaigns": len(campaigns), "campaigns_flagged": len(caught)}
    return found
