"""`GET` and `DELETE /v1/users/{user_id}/grants[/{sub}]`: list a user's grants, and revoke them."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.audit.trail import AuditTrail
from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.database.database import StorageUnavailable
from broker.grants_api.user_grants import UserGrants
from broker.revocations.revoker import Revoker
from broker.web.parameters import path_parameter, query_parameters, user_id_from
from broker.web.problems import NO_STORE, invalid_request

_SUB_LIMIT = 255


class GrantRoutes:
    """Handlers of the internal listener."""

    def __init__(
        self, *, gate: Gate, grants: UserGrants, revoker: Revoker, audit: AuditTrail
    ) -> None:
        self._gate = gate
        self._grants = grants
        self._revoker = revoker
        self._audit = audit

    def routes(self) -> list[Route]:
        """Return the routes, for the internal listener."""
        return [
            # One route: of two with the same path, `Allow` would name the first one's methods only.
            Route("/v1/users/{user_id}/grants", self.list_or_revoke, methods=["GET", "DELETE"]),
            Route("/v1/users/{user_id}/grants/{sub}", self.revoke_account, methods=["DELETE"]),
        ]

    async def list_or_revoke(self, request: Request) -> Response:
        """Answer 200 with the grants, or 204. Raises `Problem`; `StorageUnavailable`."""
        user_id = user_id_from(request)
        if request.method == "DELETE":
            caller = await self._gate.admit(request, Permission.GRANTS_REVOKE, user_id)
            return await self._revoke(request, caller, user_id, None)
        await self._gate.admit(request, Permission.GRANTS_READ, user_id)
        query_parameters(request, ())
        listed = await self._grants.list(user_id)
        documents = [self._grants.document(grant) for grant in listed.grants]
        return JSONResponse({"grants": documents}, headers=NO_STORE)

    async def revoke_account(self, request: Request) -> Response:
        """Answer 204, also if there was nothing to revoke. Raises as `list_or_revoke`."""
        user_id = user_id_from(request)
        caller = await self._gate.admit(request, Permission.GRANTS_REVOKE, user_id)
        sub = path_parameter(request, "sub")
        if not 0 < len(sub) <= _SUB_LIMIT or not sub.isprintable():
            raise invalid_request("sub", "sub must be a Google account's `sub`.")
        return await self._revoke(request, caller, user_id, sub)

    async def _revoke(
        self, request: Request, caller: Caller, user_id: str, sub: str | None
    ) -> Response:
        query_parameters(request, ())
        try:
            revoked = await self._revoker.revoke(user_id, sub, origin="caller")
        except StorageUnavailable:
            self._audit.record(
                action="grant_revoked",
                outcome="storage_unavailable",
                caller=caller.name,
                user_id=user_id,
                account_sub=sub,
                request_id=request.state.request_id,
            )
            raise
        for grant in revoked:
            self._audit.record(
                action="grant_revoked",
                outcome="ok",
                caller=caller.name,
                user_id=user_id,
                account_sub=grant.google_sub,
                scopes=grant.scopes,
                request_id=request.state.request_id,
            )
        return Response(status_code=204, headers=NO_STORE)
