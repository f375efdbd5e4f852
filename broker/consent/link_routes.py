"""`POST /v1/users/{user_id}/connect-links`: a caller obtains a link for one user."""

from collections.abc import Sequence
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.audit.trail import AuditTrail
from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.clock import Clock
from broker.consent.link_requests import LinkRequest, read_link_request
from broker.consent.links import LINK_LIFE, Link, LinkTokens
from broker.consent.store import ConsentStore
from broker.database.database import StorageUnavailable
from broker.web.bodies import read_json_object
from broker.web.paths import query_parameters, user_id_from
from broker.web.problems import NO_STORE, Problem, invalid_request


class LinkRoutes:
    """The internal listener's part of the consent."""

    def __init__(
        self,
        *,
        gate: Gate,
        store: ConsentStore,
        links: LinkTokens,
        audit: AuditTrail,
        clock: Clock,
        allowed_scopes: Sequence[str],
        redirect_uris: Sequence[str],
    ) -> None:
        self._gate = gate
        self._store = store
        self._links = links
        self._audit = audit
        self._clock = clock
        self._allowed_scopes = tuple(allowed_scopes)
        self._redirect_uris = tuple(redirect_uris)

    def routes(self) -> list[Route]:
        """To be mounted on the internal listener."""
        return [Route("/v1/users/{user_id}/connect-links", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """201 with the link. Raises `Problem`; `StorageUnavailable`."""
        user_id = user_id_from(request)
        caller = await self._gate.admit(request, Permission.LINKS_CREATE, user_id)
        try:
            asked = await self._asked(request, caller, user_id)
        except Problem as problem:
            scopes = problem.members.get("scopes", ())
            self._record(request, caller, user_id, problem.code, scopes)
            raise
        link = self._link(caller, user_id, asked)
        try:
            await self._store.add(link)
        except StorageUnavailable:
            self._record(request, caller, user_id, "storage_unavailable", link.scopes)
            raise
        self._record(request, caller, user_id, "created", link.scopes)
        return JSONResponse(self._document(link), status_code=201, headers=NO_STORE)

    async def _asked(self, request: Request, caller: Caller, user_id: str) -> LinkRequest:
        if user_id in (".", ".."):
            # Browsers resolve such a path segment, percent-encoded or not (WHATWG URL).
            raise invalid_request("user_id", "This user_id can't be part of a URL.")
        query_parameters(request, ())
        return read_link_request(
            await read_json_object(request),
            caller,
            allowed_scopes=self._allowed_scopes,
            redirect_uris=self._redirect_uris,
        )

    def _link(self, caller: Caller, user_id: str, asked: LinkRequest) -> Link:
        # Whole seconds, so that the token, the table and the answer say the same.
        expires_at = (self._clock.now() + LINK_LIFE).replace(microsecond=0)
        return Link(
            id=uuid4(),
            caller=caller.name,
            user_id=user_id,
            scopes=asked.scopes,
            redirect_uri=asked.redirect_uri,
            return_to=asked.return_to,
            login_hint=asked.login_hint,
            force_consent=False,
            expires_at=expires_at,
            completed_at=None,
            confirm=asked.confirm,
        )

    def _document(self, link: Link) -> dict[str, str]:
        return {
            "id": str(link.id),
            "url": self._links.url(link),
            "expires_at": link.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _record(
        self, request: Request, caller: Caller, user_id: str, outcome: str, scopes: Sequence[str]
    ) -> None:
        self._audit.record(
            action="connect_link",
            outcome=outcome,
            caller=caller.name,
            user_id=user_id,
            scopes=scopes,
            request_id=request.state.request_id,
        )
