"""Who may do what: the one table of roles, and the one table of routes. A route that is not in it refuses everybody."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What somebody is here."""

    ANALYST = "analyst"
    LEAD = "lead"
    RULE_AUTHOR = "rule-author"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Permission(StrEnum):
    """What somebody may do. ANYBODY needs no sign-in; SELF needs no role."""

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
"""An admin sees no case, and nobody who works on cases administers: to do both takes both roles.
Who may approve rules may put them in force and retire them; nobody approves what they drafted."""

ROUTES: Final[dict[str, Permission]] = {
    "GET /health": P.ANYBODY,
    "GET /sign-in": P.ANYBODY,
    "POST /sign-in": P.ANYBODY,
    "GET /sign-in/oidc": P.ANYBODY,
    "GET /sign-in/oidc/callback": P.ANYBODY,
    "POST /sign-out": P.SELF,
    "GET /": P.SELF,
    "GET /api/v1/me": P.SELF,
    "GET /api/v1/openapi.json": P.SELF,
    "POST /api/v1/me/password": P.SELF,
    "GET /api/v1/queue": P.READ_CASES,
    "GET /api/v1/queue/counts": P.READ_CASES,
    "POST /api/v1/queue/take-next": P.WORK_CASES,
    "GET /api/v1/search": P.READ_CASES,
    "GET /api/v1/events": P.READ_CASES,
    "GET /api/v1/cases/{case_id}": P.READ_CASES,
    "GET /api/v1/cases/{case_id}/timeline": P.READ_CASES,
    "GET /api/v1/cases/{case_id}/neighbours": P.READ_CASES,
    "POST /api/v1/cases/{case_id}/attachments": P.WORK_CASES,
    "GET /api/v1/cases/{case_id}/attachments/{sha256}": P.READ_CASES,
    "POST /api/v1/cases/{case_id}/take": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/release": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/assign": P.LEAD_CASES,
    "POST /api/v1/cases/{case_id}/note": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/escalate": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/snooze": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/wake": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/close": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/approve-closing": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/refuse-closing": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/withdraw-closing": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/reopen": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/approve-reopening": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/refuse-reopening": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/withdraw-reopening": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/merge": P.LEAD_CASES,
    "POST /api/v1/cases/{case_id}/unmerge": P.LEAD_CASES,
    "POST /api/v1/cases/{case_id}/link": P.WORK_CASES,
    "POST /api/v1/cases/{case_id}/unlink": P.WORK_CASES,
    "POST /api/v1/commands": P.LEAD_CASES,
    "GET /api/v1/people": P.ADMINISTER,
    "POST /api/v1/people": P.ADMINISTER,
    "PATCH /api/v1/people/{name}": P.ADMINISTER,
    "POST /api/v1/people/{name}/password": P.ADMINISTER,
    "POST /api/v1/people/{name}/tokens": P.ADMINISTER,
    "GET /api/v1/webhooks": P.ADMINISTER,
    "POST /api/v1/webhooks": P.ADMINISTER,
    "PATCH /api/v1/webhooks/{webhook_id}": P.ADMINISTER,
    "GET /api/v1/webhooks/{webhook_id}/deliveries": P.ADMINISTER,
    "POST /api/v1/webhooks/deliveries/{delivery_id}/send-again": P.ADMINISTER,
    "GET /api/v1/audit/doors": P.READ_AUDIT,
    "GET /api/v1/audit/erasures": P.READ_AUDIT,
    "POST /api/v1/erasures": P.ADMINISTER,
    "GET /stream": P.SELF,
    "GET /account": P.SELF,
    "POST /account": P.SELF,
    "GET /monitor": P.MONITOR,
    "GET /queue": P.READ_CASES,
    "POST /queue/take-next": P.WORK_CASES,
    "POST /queue/bulk": P.LEAD_CASES,
    "GET /cases/{case_id}": P.READ_CASES,
    "GET /rules": P.READ_RULES,
    "POST /rules": P.WRITE_RULES,
    "GET /rules/draft": P.WRITE_RULES,
    "GET /rules/{pack_id}": P.READ_RULES,
    "POST /rules/{pack_id}/approve": P.APPROVE_RULES,
    "POST /rules/{pack_id}/activate": P.APPROVE_RULES,
    "POST /rules/{pack_id}/shadow": P.WRITE_RULES,
    "POST /rules/{pack_id}/retire": P.APPROVE_RULES,
    "GET /rules/{pack_id}/whatif": P.READ_RULES,
    "POST /rules/{pack_id}/whatif": P.APPROVE_RULES,
    "GET /rules/{pack_id}/whatif/{run_id}": P.READ_RULES,
    "GET /rules/{pack_id}/whatif/{run_id}/report": P.READ_RULES,
    "GET /audit": P.READ_AUDIT,
    "GET /people": P.ADMINISTER,
    "POST /people": P.ADMINISTER,
    "POST /people/{name}": P.ADMINISTER,
    "GET /webhooks": P.ADMINISTER,
    "POST /webhooks": P.ADMINISTER,
    "POST /webhooks/{webhook_id}": P.ADMINISTER,
    "POST /webhooks/deliveries/{delivery_id}": P.ADMINISTER,
}
"""Every route, by method and path."""
_PAGES: Final = "/cases/{case_id}/"
ROUTES.update(
    {
        route.replace("/api/v1", ""): permission
        for route, permission in ROUTES.items()
        if route.startswith(f"POST /api/v1{_PAGES}") and not route.endswith("/attachments")
    }
)
"""A command from a page takes what it takes over the API."""


def permissions_of(roles: frozenset[Role]) -> frozenset[Permission]:
    """What these roles may do together."""
    return frozenset({P.ANYBODY, P.SELF}).union(*(ROLES[role] for role in roles))
