"""`POST /v1/connect-links/{id}/confirm`: a caller says that the browser was its user's.

It alone knows whose session came back with the code. Until then nobody gets a token.
"""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.consent.flow import OnConnected
from broker.consent.records import ConsentRecords
from broker.grants.model import Grant
from broker.grants.pending.store import Confirmed, PendingConsents, Unconfirmed
from broker.secret import Secret
from broker.web.bodies import read_json_object
from broker.web.paths import path_parameter, query_parameters
from broker.web.problems import NO_STORE, confirmation_invalid, invalid_request

_LONGEST_CODE = 255


class ConfirmRoute:
    """The internal listener's other part of the consent."""

    def __init__(
        self,
        *,
        gate: Gate,
        pending: PendingConsents,
        records: ConsentRecords,
        shown: Callable[[Grant], Mapping[str, Any]],
        on_connected: OnConnected,
    ) -> None:
        """`shown` makes a grant what a list of grants has of it."""
        self._gate = gate
        self._pending = pending
        self._records = records
        self._shown = shown
        self._on_connected = on_connected

    def routes(self) -> list[Route]:
        """To be mounted on the internal listener."""
        return [Route("/v1/connect-links/{id}/confirm", self.confirm, methods=["POST"])]

    async def confirm(self, request: Request) -> Response:
        """200 with the grant. Raises `Problem`; `StorageUnavailable`."""
        caller = await self._gate.admit_for_some(request, Permission.LINKS_CREATE)
        query_parameters(request, ())
        link_id = _link_id(request)
        code = _code(await read_json_object(request))
        user_id = await self._pending.user_of(link_id, caller=caller.name)
        if user_id is None:
            return self._refuse(request, caller, None, Unconfirmed.UNKNOWN)
        refusal = self._gate.refusal(request, caller, user_id)
        if refusal is not None:
            raise refusal
        result = await self._pending.confirm(link_id, code, caller=caller.name)
        if isinstance(result, Unconfirmed):
            return self._refuse(request, caller, user_id, result)
        return self._done(request, caller, result)

    def _done(self, request: Request, caller: Caller, confirmed: Confirmed) -> Response:
        grant = confirmed.grant
        self._on_connected(grant.user_id, grant, confirmed.access_token)
        self._records.confirmed(grant, caller=caller.name, request_id=request.state.request_id)
        return JSONResponse(self._shown(grant), headers=NO_STORE)

    def _refuse(
        self, request: Request, caller: Caller, user_id: str | None, fault: Unconfirmed
    ) -> Response:
        self._records.not_confirmed(
            fault, caller=caller.name, user_id=user_id, request_id=request.state.request_id
        )
        raise confirmation_invalid()


def _link_id(request: Request) -> UUID:
    text = path_parameter(request, "id")
    try:
        link_id = UUID(text)
    except ValueError as error:
        raise invalid_request("id", "id must be a connect link's id, a UUID.") from error
    if str(link_id) != text.lower():
        raise invalid_request("id", "id must be a connect link's id, a UUID.")
    return link_id


def _code(body: Mapping[str, Any]) -> Secret:
    if set(body) - {"code"}:
        raise invalid_request("body", "Unknown member; known here: code.")
    code = body.get("code")
    if not isinstance(code, str) or not 0 < len(code) <= _LONGEST_CODE:
        raise invalid_request(
            "code", "code is required: the `confirmation` that came back with the browser."
        )
    return Secret(code)
