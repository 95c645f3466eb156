"""Explain a decision: each rule's value and threshold, and the smallest change that would have turned it.

Everything is derived from the log by the folds that decide: the payments of the account, the packs and the labels in
the order in which they arrived. Changes are searched in one field, in time or in space; each reported change was
verified by folding the changed log.
"""

from dataclasses import asdict
from typing import Any

from console.rules.dossier import DecisionDossier, Log
from console.rules.smallest_change import SmallestChange, smallest_changes
from domain.risk.expression import COMPARISONS, IntegerComparison
from domain.risk.fold import RuleFinding, findings
from domain.risk.history import History


def explain_decision(log: Log, dossier: DecisionDossier) -> dict[str, Any]:
    """Explain the decision on a payment as plain data."""
    payment, pack = dossier.payment, dossier.pack
    decision = dossier.decision(payment)
    changes = [_change(change) for change in smallest_changes(log, dossier)]
    same_id = [other.digest.hex() for other in dossier.others if other.transaction_id == payment.transaction_id]
    return {
        "transaction_id": payment.transaction_id,
        "account_id": payment.account_id,
        "content_digest": payment.digest.hex(),
        "same_id_other_content": same_id,
        "event_time": payment.event_time_ms,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "pack": {
            "name": pack.pack.name, "version": pack.pack.version, "pack_id": pack.pack_id, "flag_at": pack.pack.flag_at,
        },
        "flagged": bool(decision.reasons),
        "score": decision.score,
        "on_arrival": {"flagged": bool(dossier.first.reasons), "score": dossier.first.score},
        "rules": _rules(dossier),
        "smallest_change": changes[0] if changes else None,
        "changes": changes,
    }  # fmt: skip


def _rules(dossier: DecisionDossier) -> list[dict[str, Any]]:
    history, index = dossier.placed(dossier.payment)
    found = {each.compiled.rule.name: _rule(each, history, index) for each in findings(history, index, dossier.pack)}
    for rule in dossier.pack.pack.rules:
        if rule.entity_key:
            found[rule.name] = {
                "rule": rule.name, "family": rule.family, "fired": None, "distance": None,
                "lacking": "decided in the log of the merchant, terminal or device",
            }  # fmt: skip
    return [found[rule.name] for rule in dossier.pack.pack.rules]


def _rule(finding: RuleFinding, history: History, index: int) -> dict[str, Any]:
    compiled, measured = finding.compiled, finding.measured
    rule = compiled.rule
    lacking = measured.lacking or ("" if finding.is_open else "its guard is false")
    return {
        "rule": rule.name,
        "family": rule.family,
        "fired": measured.holds and finding.is_open and (finding.points > 0 or rule.is_allowing),
        "measure": measured.measure,
        "value": measured.value,
        "threshold": measured.threshold,
        "distance": None if measured.value is None else max(0, measured.threshold - measured.value),
        "points": finding.points,
        "severity": rule.severity,
        "reason_code": rule.reason_code,
        "guard": {"when": rule.when, "holds": finding.is_open} if rule.when else None,
        "lacking": lacking,
        "contributing": list(measured.contributing),
        "comparisons": [
            _comparison(each, history, index)
            for part in (compiled.value, compiled.when)
            if part is not None
            for each in part.comparisons
        ],
    }


def _comparison(comparison: IntegerComparison, history: History, index: int) -> dict[str, Any]:
    left, right = comparison.evaluate_left(history, index), comparison.evaluate_right(history, index)
    return {
        "comparison": f"{comparison.left} {comparison.sign} {comparison.right}",
        "left": left, "right": right, "holds": COMPARISONS[comparison.sign](left, right),
    }  # fmt: skip


def _change(change: SmallestChange) -> dict[str, Any]:
    return {**asdict(change), "rules": list(change.rules), "verified": True}
