"""The permission of every route. A route that is not in this table refuses everybody."""

from typing import Final

from console.cases.act_catalog import ACTS
from console.people.roles import P, Permission

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
"""Permission of each route, by method and path."""
ROUTES.update(
    {
        f"POST {prefix}/cases/{{case_id}}/{act.name}": act.permission
        for act in ACTS.values()
        for prefix in ("/api/v1", "")
    }
)
"""The routes of the acts, in the API and in the pages."""
