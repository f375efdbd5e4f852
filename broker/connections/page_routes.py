"""The user's own page on the public listener: who may see it, and what each of its forms does.

A browser is redirected to the page itself, and to a connect link of ours. Looking changes nothing:
only forms that prove to be the visitor's own do.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.connections.pages import (
    Connection,
    ConnectionsPages,
    Overview,
    TranslatedConnectionsPages,
)
from broker.connections.reconnection import Reconnection
from broker.connections.revoker import Revoker
from broker.connections.visit_links import PAGE_PATH, LinkFault, VisitLinks
from broker.connections.visitors import Deed, Notice, Visitor, VisitorCookies
from broker.connections.visits import Visit, Visits
from broker.consent.callbacks import read_query
from broker.grants.last_uses import LastUses
from broker.grants.model import Grant, GrantStatus
from broker.grants.store import GrantStore
from broker.pages.forms import is_from_own_page, read_form
from broker.pages.visitors import is_only_looking
from broker.telemetry.audit import AuditTrail

WITHDRAW_PATH = f"{PAGE_PATH}/withdraw"
CONNECT_PATH = f"{PAGE_PATH}/connect"
LEAVE_PATH = f"{PAGE_PATH}/leave"
CLOSED_PATH = f"{PAGE_PATH}/closed"

_SHOWN_AFTER_WITHDRAWAL = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Guest:
    """A visitor whose visit is open."""

    visitor: Visitor
    visit: Visit


class ConnectionsPage:
    """Handlers of the page."""

    def __init__(  # noqa: PLR0913  (wired once, by keyword)
        self,
        *,
        pages: TranslatedConnectionsPages,
        visits: Visits,
        links: VisitLinks,
        cookies: VisitorCookies,
        grants: GrantStore,
        last_uses: LastUses,
        revoker: Revoker,
        reconnection: Reconnection,
        registry: CallerRegistry,
        audit: AuditTrail,
        clock: Clock,
        own_origins: Sequence[str],
        way_to_google: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        """`way_to_google` gives the origins that connecting again leads through."""
        self._pages = pages
        self._visits = visits
        self._links = links
        self._cookies = cookies
        self._grants = grants
        self._last_uses = last_uses
        self._revoker = revoker
        self._reconnection = reconnection
        self._registry = registry
        self._audit = audit
        self._clock = clock
        self._own_origins = tuple(own_origins)
        self._way_to_google = way_to_google

    def routes(self) -> list[BaseRoute]:
        """To be mounted on the public listener."""
        return [
            Route(PAGE_PATH, self.show, methods=["GET"]),
            Route(WITHDRAW_PATH, self.withdraw, methods=["GET", "POST"]),
            Route(CONNECT_PATH, self.connect, methods=["POST"]),
            Route(LEAVE_PATH, self.leave, methods=["POST"]),
            Route(CLOSED_PATH, self.closed, methods=["GET"]),
        ]

    # Looking.

    async def show(self, request: Request) -> Response:
        """The page; or the link that opens it, or the way back from Google."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        query = read_query(request.scope["query_string"])
        if query is None:
            return self._refused(request, "malformed")
        if "link" in query:
            return await self._open(request, query["link"])
        guest = await self._guest(request)
        if isinstance(guest, Response):
            return guest
        if "link_id" in query:
            return await self._welcome_back(guest, query["link_id"])
        response = await self._overview(request, guest)
        self._cookies.told(response)
        return response

    async def _overview(self, request: Request, guest: Guest) -> Response:
        grants = await self._grants.list(guest.visit.user_id)
        shown = self._shown(request, guest, grants)
        can_connect = any(connection.connect_token for connection in shown.connections)
        targets = await self._way_to_google() if can_connect else ()
        return self._reader(request).overview(shown, form_targets=targets)

    def _shown(self, request: Request, guest: Guest, grants: Sequence[Grant]) -> Overview:
        now = self._clock.now()
        noted = self._cookies.noted(guest.visitor, request.cookies)
        about = self._find(grants, noted[1]) if noted is not None else None
        return Overview(
            visit=guest.visit,
            service=self._service(guest.visit.caller),
            connections=[
                self._connection(guest, grant)
                for grant in grants
                if grant.status is not GrantStatus.REVOKED
                or now - grant.updated_at < _SHOWN_AFTER_WITHDRAWAL
            ],
            leave_token=self._cookies.form_token(guest.visitor, Deed.LEAVE),
            notice=(noted[0], about.email) if noted is not None and about is not None else None,
            now=now,
        )

    def _connection(self, guest: Guest, grant: Grant) -> Connection:
        use = self._last_uses.latest(grant)
        can_connect = bool(self._reconnection.scopes(guest.visit, grant))
        return Connection(
            grant=grant,
            last_use=use,
            used_by=self._service(use.by) if use is not None and use.by is not None else None,
            connect_token=self._cookies.form_token(guest.visitor, Deed.CONNECT, str(grant.id))
            if can_connect
            else None,
        )

    def _service(self, caller_name: str) -> str:
        """The name that people know."""
        caller = self._registry.named(caller_name)
        return caller.name if caller is not None else caller_name

    async def closed(self, request: Request) -> Response:
        """Where a visitor who is done ends."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        visitor = self._cookies.of(request.cookies)
        visit = await self._visits.of(visitor.hash) if visitor is not None else None
        if visit is not None and visit.is_open(self._clock.now()):
            return self._pages.frame.redirect(PAGE_PATH)
        return self._refused(request, "closed", visit)

    # Coming in.

    async def _open(self, request: Request, unverified_token: str) -> Response:
        visit_id = self._links.read(unverified_token, now=self._clock.now())
        if visit_id is LinkFault.EXPIRED:
            return self._refused(request, "link_expired")
        if isinstance(visit_id, LinkFault):
            return self._refused(request, "link_not_ours")
        visitor = self._cookies.new()
        visit = await self._visits.open(visit_id, visitor.hash)
        if visit is not None:
            self._record(request, visit, "connections_page", "opened")
            response = self._pages.frame.redirect(PAGE_PATH)
            self._cookies.remember(visitor, response)
            return response
        known = await self._visits.find(visit_id)
        if known is None or not known.is_opened:
            return self._refused(request, "link_expired", known)
        guest = await self._guest(request)
        if isinstance(guest, Guest) and guest.visit.id == visit_id:
            return self._pages.frame.redirect(PAGE_PATH)
        self._record(request, known, "connections_page", "refused:link_used")
        return self._refused(request, "link_used")

    async def _guest(self, request: Request) -> Guest | Response:
        """Who this is; a page instead if they may not see anything."""
        visitor = self._cookies.of(request.cookies)
        visit = await self._visits.of(visitor.hash) if visitor is not None else None
        if visitor is None or visit is None or not visit.is_open(self._clock.now()):
            return self._refused(request, "visit_over", visit)
        return Guest(visitor, visit)

    async def _welcome_back(self, guest: Guest, unverified_link_id: str) -> Response:
        response = self._pages.frame.redirect(PAGE_PATH)
        ended = await self._reconnection.ended(guest.visit, unverified_link_id)
        if ended is not None:
            google_sub, is_completed = ended
            for grant in await self._grants.list(guest.visit.user_id):
                if grant.google_sub == google_sub:
                    is_good = is_completed and grant.status is GrantStatus.ACTIVE
                    notice = Notice.CONNECTED if is_good else Notice.NOT_CONNECTED
                    self._cookies.note(guest.visitor, notice, str(grant.id), response)
        return response

    # Doing.

    async def withdraw(self, request: Request) -> Response:
        """Ask first (GET), then do it (POST)."""
        if request.method == "POST":
            return await self._withdraw(request)
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        guest = await self._guest(request)
        if isinstance(guest, Response):
            return guest
        query = read_query(request.scope["query_string"]) or {}
        grants = await self._grants.list(guest.visit.user_id)
        grant = self._find(grants, query.get("grant", ""))
        if grant is None or grant.status is GrantStatus.REVOKED:
            return self._back(guest, Notice.ALREADY_WITHDRAWN, grant)
        return self._reader(request).confirmation(
            self._connection(guest, grant),
            self._shown(request, guest, grants),
            withdraw_token=self._cookies.form_token(guest.visitor, Deed.WITHDRAW, str(grant.id)),
        )

    async def _withdraw(self, request: Request) -> Response:
        acting = await self._acting(request, Deed.WITHDRAW)
        if isinstance(acting, Response):
            return acting
        guest, grant = acting
        if grant is None:
            return self._back(guest, Notice.ALREADY_WITHDRAWN, None)
        revoked = await self._revoker.revoke(guest.visit.user_id, grant.google_sub, origin="user")
        for ended in revoked:
            self._record(request, guest.visit, "grant_revoked", "by_user", ended)
        notice = Notice.WITHDRAWN if revoked else Notice.ALREADY_WITHDRAWN
        return self._back(guest, notice, grant)

    async def connect(self, request: Request) -> Response:
        """Begin the consent for what a broken or withdrawn connection had."""
        acting = await self._acting(request, Deed.CONNECT)
        if isinstance(acting, Response):
            return acting
        guest, grant = acting
        url = (
            await self._reconnection.begin(guest.visit, grant, request_id=request.state.request_id)
            if grant is not None
            else None
        )
        if url is None:
            return self._back(guest, Notice.CANNOT_CONNECT, grant)
        await self._visits.prolong(guest.visit)
        return self._pages.frame.redirect(url)

    async def leave(self, request: Request) -> Response:
        """The visit ends, in all tabs."""
        acting = await self._acting(request, Deed.LEAVE)
        if isinstance(acting, Response):
            return acting
        guest, _ = acting
        await self._visits.end(guest.visit)
        self._record(request, guest.visit, "connections_page", "closed")
        return self._pages.frame.redirect(CLOSED_PATH)

    async def _acting(self, request: Request, deed: Deed) -> tuple[Guest, Grant | None] | Response:
        """Who acts, on which grant of theirs; a page instead if the form is not their own."""
        if not is_from_own_page(request, self._own_origins):
            return self._refused(request, "form_not_ours")
        form = await read_form(request)
        if form is None:
            return self._refused(request, "malformed")
        guest = await self._guest(request)
        if isinstance(guest, Response):
            return guest
        about = form.get("grant", "")
        if not self._cookies.has_made(form.get("token", ""), guest.visitor, deed, about):
            return self._refused(request, "form_not_ours")
        return guest, self._find(await self._grants.list(guest.visit.user_id), about)

    def _find(self, grants: Sequence[Grant], grant_id: str) -> Grant | None:
        """One of the user's own."""
        return next((grant for grant in grants if str(grant.id) == grant_id), None)

    # Answering.

    def _back(self, guest: Guest, notice: Notice, grant: Grant | None) -> Response:
        """To the page, where it is told what happened."""
        response = self._pages.frame.redirect(PAGE_PATH)
        if grant is not None:
            self._cookies.note(guest.visitor, notice, str(grant.id), response)
        return response

    def _reader(self, request: Request) -> ConnectionsPages:
        return self._pages.for_reader(request)

    def _refused(self, request: Request, key: str, visit: Visit | None = None) -> Response:
        return self._reader(request).refused(
            key,
            request_id=request.state.request_id,
            visit=visit,
            service=self._service(visit.caller) if visit is not None else "",
        )

    def _record(
        self,
        request: Request,
        visit: Visit,
        action: str,
        outcome: str,
        grant: Grant | None = None,
    ) -> None:
        self._audit.record(
            action=action,
            outcome=outcome,
            caller=visit.caller,
            user_id=visit.user_id,
            account_sub=grant.google_sub if grant is not None else None,
            scopes=grant.scopes if grant is not None else (),
            request_id=request.state.request_id,
        )


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
