"""Roles, and the permissions that each role gives."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """A role of a person."""

    ANALYST = "analyst"
    LEAD = "lead"
    RULE_AUTHOR = "rule-author"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Permission(StrEnum):
    """A permission. ANYBODY needs no sign-in; SELF needs no role."""

    ANYBODY = "anybody"
    SELF = "self"
    MONITOR = "monitor"
    READ_CASES = "read-cases"
    WORK_CASES = "work-cases"
    LEAD_CASES = "lead-cases"
    READ_RULES = "read-rules"
    WRITE_RULES = "write-rules"
    APPROVE_RULES = "approve-rules"
    READ_AUDIT = "read-audit"
    ADMINISTER = "administer"


P, R = Permission, Role


ROLES: Final[dict[Role, frozenset[Permission]]] = {
    R.ANALYST: frozenset({P.MONITOR, P.READ_CASES, P.WORK_CASES, P.READ_RULES}),
    R.LEAD: frozenset({P.MONITOR, P.READ_CASES, P.WORK_CASES, P.LEAD_CASES, P.READ_RULES, P.APPROVE_RULES}),
    R.RULE_AUTHOR: frozenset({P.MONITOR, P.READ_RULES, P.WRITE_RULES, P.APPROVE_RULES}),
    R.AUDITOR: frozenset({P.MONITOR, P.READ_CASES, P.READ_RULES, P.READ_AUDIT}),
    R.ADMIN: frozenset({P.MONITOR, P.ADMINISTER, P.READ_RULES, P.APPROVE_RULES}),
}
"""Permissions of each role. An admin sees no cases; roles that work on cases cannot administer. A user may have both.
Users who may approve rule packs may also activate and retire them, but nobody approves their own draft."""


def permissions_of(roles: frozenset[Role]) -> frozenset[Permission]:
    """Return the permissions that these roles give together."""
    return frozenset({P.ANYBODY, P.SELF}).union(*(ROLES[role] for role in roles))
