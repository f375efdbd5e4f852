"""`POST /v1/users/{user_id}/connections-links`: a caller obtains a link to the user's own page."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.audit.trail import AuditTrail
from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.clock import rfc3339
from broker.connections.visit_links import VisitLinks
from broker.connections.visits import Visits
from broker.database.database import StorageUnavailable
from broker.web.bodies import read_json_object
from broker.web.paths import query_parameters, user_id_from
from broker.web.problems import NO_STORE, Problem, invalid_request


def connections_link_routes(
    *, gate: Gate, visits: Visits, links: VisitLinks, audit: AuditTrail
) -> list[Route]:
    """To be mounted on the internal listener."""

    async def create(request: Request) -> Response:
        user_id = user_id_from(request)
        caller = await gate.admit(request, Permission.LINKS_CREATE, user_id)
        try:
            query_parameters(request, ())
            return_to = _return_to(await read_json_object(request), caller)
        except Problem as problem:
            record(request, caller, user_id, problem.code)
            raise
        try:
            visit = await visits.add(caller=caller.name, user_id=user_id, return_to=return_to)
        except StorageUnavailable:
            record(request, caller, user_id, "storage_unavailable")
            raise
        record(request, caller, user_id, "created")
        document = {
            "id": str(visit.id),
            "url": links.url(visit),
            "expires_at": rfc3339(visit.link_expires_at),
        }
        return JSONResponse(document, status_code=201, headers=NO_STORE)

    def record(request: Request, caller: Caller, user_id: str, outcome: str) -> None:
        audit.record(
            action="connections_link",
            outcome=outcome,
            caller=caller.name,
            user_id=user_id,
            request_id=request.state.request_id,
        )

    return [Route("/v1/users/{user_id}/connections-links", create, methods=["POST"])]


def _return_to(body: Mapping[str, Any], caller: Caller) -> str | None:
    if set(body) - {"return_to"}:
        raise invalid_request("body", "Unknown member; known here: return_to.")
    if "return_to" not in body:
        return None
    address = body["return_to"]
    if not isinstance(address, str):
        raise invalid_request("return_to", "return_to must be a string.")
    if address not in caller.return_to:
        raise invalid_request(
            "return_to", "return_to is not in this caller's list; it must match exactly."
        )
    return address
