"""`POST /v1/users/{user_id}/connections-links`: a caller creates a link to the connections page."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.audit.trail import AuditTrail
from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.clock import rfc3339
from broker.connections.visits import Visits
from broker.consent.link_api import read_return_to
from broker.database.database import StorageUnavailable
from broker.web.bodies import read_json_object
from broker.web.parameters import query_parameters, user_id_from
from broker.web.problems import NO_STORE, Problem, invalid_request


class CreatePageLinkRoute:
    """Creates links to the connections page."""

    def __init__(self, *, gate: Gate, visits: Visits, audit: AuditTrail) -> None:
        self._gate = gate
        self._visits = visits
        self._audit = audit

    def routes(self) -> list[Route]:
        """Return the routes, for the internal listener."""
        return [Route("/v1/users/{user_id}/connections-links", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """Answer 201 with the link. Raises `Problem`; `StorageUnavailable`."""
        user_id = user_id_from(request)
        caller = await self._gate.admit(request, Permission.LINKS_CREATE, user_id)
        try:
            query_parameters(request, ())
            return_to = await _read(request, caller)
        except Problem as problem:
            self._record(request, caller, user_id, problem.code)
            raise
        try:
            visit = await self._visits.create(
                caller=caller.name, user_id=user_id, return_to=return_to
            )
        except StorageUnavailable:
            self._record(request, caller, user_id, "storage_unavailable")
            raise
        self._record(request, caller, user_id, "created")
        document = {
            "id": str(visit.id),
            "url": self._visits.url(visit),
            "expires_at": rfc3339(visit.link_expires_at),
        }
        return JSONResponse(document, status_code=201, headers=NO_STORE)

    def _record(self, request: Request, caller: Caller, user_id: str, outcome: str) -> None:
        self._audit.record(
            action="connections_link",
            outcome=outcome,
            caller=caller.name,
            user_id=user_id,
            request_id=request.state.request_id,
        )


async def _read(request: Request, caller: Caller) -> str | None:
    body = await read_json_object(request)
    if set(body) - {"return_to"}:
        raise invalid_request("body", "Unknown member; known here: return_to.")
    return read_return_to(body, caller)
