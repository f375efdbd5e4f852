"""`GET` and `DELETE /v1/users/{user_id}/grants[/{sub}]`: what is connected, and its end."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.audit.trail import AuditTrail
from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.clock import rfc3339
from broker.database.database import StorageUnavailable
from broker.grants.last_uses import LastUses
from broker.grants.model import Grant, GrantStatus
from broker.grants.pending.rows import PendingConsent
from broker.grants.pending.store import PendingConsents
from broker.grants.store import GrantStore
from broker.grants_api.revoker import Revoker
from broker.web.paths import path_parameter, query_parameters, user_id_from
from broker.web.problems import NO_STORE, invalid_request

_SUB_LIMIT = 255


def connection_routes(
    *,
    gate: Gate,
    grants: GrantStore,
    pending: PendingConsents,
    revoker: Revoker,
    last_uses: LastUses,
    audit: AuditTrail,
) -> list[Route]:
    """The routes, with what they depend on."""

    async def list_grants(request: Request) -> Response:
        user_id = user_id_from(request)
        await gate.admit(request, Permission.GRANTS_READ, user_id)
        query_parameters(request, ())
        listed = await grants.list(user_id)
        waiting = (await pending.of_users([user_id])).get(user_id, ())
        return JSONResponse(
            {"grants": [shown(grant, last_uses) for grant in with_unconfirmed(listed, waiting)]},
            headers=NO_STORE,
        )

    async def revoke_all(request: Request) -> Response:
        user_id = user_id_from(request)
        caller = await gate.admit(request, Permission.GRANTS_REVOKE, user_id)
        return await _revoke(request, caller, user_id, None)

    async def revoke_one(request: Request) -> Response:
        user_id = user_id_from(request)
        caller = await gate.admit(request, Permission.GRANTS_REVOKE, user_id)
        sub = path_parameter(request, "sub")
        if not 0 < len(sub) <= _SUB_LIMIT or not sub.isprintable():
            raise invalid_request("sub", "sub must be a Google account's `sub`.")
        return await _revoke(request, caller, user_id, sub)

    async def _revoke(request: Request, caller: Caller, user_id: str, sub: str | None) -> Response:
        query_parameters(request, ())
        try:
            revoked = await revoker.revoke(user_id, sub, origin="caller")
        except StorageUnavailable:
            audit.record(
                action="grant_revoked",
                outcome="storage_unavailable",
                caller=caller.name,
                user_id=user_id,
                account_sub=sub,
                request_id=request.state.request_id,
            )
            raise
        for grant in revoked:
            audit.record(
                action="grant_revoked",
                outcome="ok",
                caller=caller.name,
                user_id=user_id,
                account_sub=grant.google_sub,
                scopes=grant.scopes,
                request_id=request.state.request_id,
            )
        return Response(status_code=204, headers=NO_STORE)

    async def list_or_revoke(request: Request) -> Response:
        return await (revoke_all if request.method == "DELETE" else list_grants)(request)

    return [
        # One route: of two with the same path, `Allow` would name the methods of the first only.
        Route("/v1/users/{user_id}/grants", list_or_revoke, methods=["GET", "DELETE"]),
        Route("/v1/users/{user_id}/grants/{sub}", revoke_one, methods=["DELETE"]),
    ]


def with_unconfirmed(grants: Sequence[Grant], waiting: Sequence[PendingConsent]) -> Sequence[Grant]:
    """A user's grants; what waits for a confirmation stands for an account that has none active."""
    active = {grant.google_sub for grant in grants if grant.status is GrantStatus.ACTIVE}
    # The newest comes first in `waiting`, and last into the mapping.
    pending = {p.google_sub: p.as_grant() for p in reversed(waiting) if p.google_sub not in active}
    others = [grant for grant in grants if grant.google_sub not in pending]
    return sorted([*others, *pending.values()], key=lambda grant: grant.connected_at)


def shown(grant: Grant, last_uses: LastUses) -> dict[str, Any]:
    """A grant as the contract shows it; never with a token."""
    last_use = last_uses.latest(grant)
    return {
        "account": {"sub": grant.google_sub, "email": grant.email},
        "scopes": list(grant.scopes),
        "status": grant.status.value,
        **({"reason": grant.reason} if grant.reason else {}),
        "default": grant.is_default,
        "connected_at": rfc3339(grant.connected_at),
        "updated_at": rfc3339(grant.updated_at),
        "last_used_at": rfc3339(last_use.at) if last_use else None,
    }
