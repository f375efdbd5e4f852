"""The user's own page on the public listener: what it shows, and what each of its forms does.

A browser is redirected to the page itself, and to a connect link of ours. Looking changes nothing:
only forms that prove to be the visitor's own do.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.clock import Clock
from broker.connections.doorway import CLOSED_PATH, Act, Doorway, Guest
from broker.connections.pages import Connection, Overview, TranslatedConnectionsPages
from broker.connections.reconnection import Reconnection
from broker.connections.visit_links import PAGE_PATH
from broker.connections.visitors import Deed, Notice, VisitorCookies
from broker.consent.callbacks import read_query
from broker.grants.last_uses import LastUses
from broker.grants.model import Grant, GrantStatus
from broker.grants.pending.store import PendingConsents
from broker.grants.store import GrantStore
from broker.grants_api.revoker import Revoker
from broker.grants_api.routes import with_unconfirmed
from broker.pages.cookies import cookies_of
from broker.pages.visitors import is_only_looking

WITHDRAW_PATH = f"{PAGE_PATH}/withdraw"
CONNECT_PATH = f"{PAGE_PATH}/connect"
LEAVE_PATH = f"{PAGE_PATH}/leave"

_SHOWN_AFTER_WITHDRAWAL = timedelta(days=30)


class ConnectionsPage:
    """Handlers of the page."""

    def __init__(  # noqa: PLR0913  (wired once, by keyword)
        self,
        *,
        doorway: Doorway,
        pages: TranslatedConnectionsPages,
        cookies: VisitorCookies,
        grants: GrantStore,
        pending: PendingConsents,
        last_uses: LastUses,
        revoker: Revoker,
        reconnection: Reconnection,
        clock: Clock,
        way_to_google: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        """`way_to_google` gives the origins that connecting again leads through."""
        self._doorway = doorway
        self._pages = pages
        self._cookies = cookies
        self._grants = grants
        self._pending = pending
        self._last_uses = last_uses
        self._revoker = revoker
        self._reconnection = reconnection
        self._clock = clock
        self._way_to_google = way_to_google

    def routes(self) -> list[BaseRoute]:
        """To be mounted on the public listener."""
        return [
            Route(PAGE_PATH, self.show, methods=["GET"]),
            Route(WITHDRAW_PATH, self.withdraw, methods=["GET", "POST"]),
            Route(CONNECT_PATH, self.connect, methods=["POST"]),
            Route(LEAVE_PATH, self._doorway.leave, methods=["POST"]),
            Route(CLOSED_PATH, self._doorway.closed, methods=["GET"]),
        ]

    # Looking.

    async def show(self, request: Request) -> Response:
        """The page; or the link that opens it, or the way back from Google."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        query = read_query(request.scope["query_string"])
        if query is None:
            return self._doorway.refused(request, "malformed")
        if "link" in query:
            return await self._doorway.open(request, query["link"])
        guest = await self._doorway.guest(request)
        if isinstance(guest, Response):
            return guest
        if "link_id" in query:
            return await self._welcome_back(guest, query["link_id"])
        response = await self._overview(request, guest)
        self._cookies.told(response)
        return response

    async def _overview(self, request: Request, guest: Guest) -> Response:
        listed = await self._listed(guest.visit.user_id)
        shown = self._shown(request, guest, listed)
        can_connect = any(connection.connect_token for connection in shown.connections)
        targets = await self._way_to_google() if can_connect else ()
        return self._pages.for_reader(request).overview(shown, form_targets=targets)

    def _shown(self, request: Request, guest: Guest, listed: "_Listed") -> Overview:
        now = self._clock.now()
        noted = self._cookies.noted(guest.visitor, cookies_of(request))
        about = listed.find(noted[1]) if noted is not None else None
        return Overview(
            visit=guest.visit,
            service=self._doorway.service(guest.visit.caller),
            connections=[
                self._connection(guest, grant, listed)
                for grant in listed.grants
                if grant.status is not GrantStatus.REVOKED
                or now - grant.updated_at < _SHOWN_AFTER_WITHDRAWAL
            ],
            leave_token=self._cookies.form_token(guest.visitor, Deed.LEAVE),
            notice=(noted[0], about.email if about else None) if noted is not None else None,
            now=now,
        )

    def _connection(self, guest: Guest, grant: Grant, listed: "_Listed") -> Connection:
        use = self._last_uses.latest(grant)
        asked_by = listed.asked_by.get(grant.id, guest.visit.caller)
        can_connect = bool(self._reconnection.scopes(guest.visit, grant))
        return Connection(
            grant=grant,
            asked_by=self._doorway.service(asked_by),
            last_use=use,
            used_by=self._doorway.service(use.by)
            if use is not None and use.by is not None
            else None,
            connect_token=self._cookies.form_token(guest.visitor, Deed.CONNECT, str(grant.id))
            if can_connect
            else None,
        )

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
        guest = await self._doorway.guest(request)
        if isinstance(guest, Response):
            return guest
        query = read_query(request.scope["query_string"]) or {}
        listed = await self._listed(guest.visit.user_id)
        grant = listed.find(query.get("grant", ""))
        if grant is None or grant.status is GrantStatus.REVOKED:
            return self._back(guest, Notice.ALREADY_WITHDRAWN, grant)
        return self._pages.for_reader(request).confirmation(
            self._connection(guest, grant, listed),
            self._shown(request, guest, listed),
            withdraw_token=self._cookies.form_token(guest.visitor, Deed.WITHDRAW, str(grant.id)),
        )

    async def _withdraw(self, request: Request) -> Response:
        act = await self._doorway.act(request, Deed.WITHDRAW)
        if isinstance(act, Response):
            return act
        guest, grant = act.guest, await self._grant(act)
        if grant is None:
            return self._back(guest, Notice.ALREADY_WITHDRAWN, None)
        revoked = await self._revoker.revoke(guest.visit.user_id, grant.google_sub, origin="user")
        for ended in revoked:
            self._doorway.record(request, guest.visit, "grant_revoked", "by_user", ended)
        if not revoked:
            return self._back(guest, Notice.ALREADY_WITHDRAWN, grant)
        # A grant that ended comes before what waited beside it, and is still there to be named.
        return self._back(guest, Notice.WITHDRAWN, revoked[0])

    async def connect(self, request: Request) -> Response:
        """Begin the consent for what a broken or withdrawn connection had."""
        act = await self._doorway.act(request, Deed.CONNECT)
        if isinstance(act, Response):
            return act
        guest, grant = act.guest, await self._grant(act)
        url = (
            await self._reconnection.begin(guest.visit, grant, request_id=request.state.request_id)
            if grant is not None
            else None
        )
        if url is None:
            return self._back(guest, Notice.CANNOT_CONNECT, grant)
        await self._doorway.prolong(guest)
        return self._pages.frame.redirect(url)

    async def _grant(self, act: Act) -> Grant | None:
        return (await self._listed(act.guest.visit.user_id)).find(act.about)

    async def _listed(self, user_id: str) -> "_Listed":
        grants = await self._grants.list(user_id)
        waiting = (await self._pending.of_users([user_id])).get(user_id, ())
        return _Listed(
            with_unconfirmed(grants, waiting),
            {pending.link_id: pending.caller for pending in waiting},
        )

    def _back(self, guest: Guest, notice: Notice, grant: Grant | None) -> Response:
        """To the page, where it is told what happened."""
        response = self._pages.frame.redirect(PAGE_PATH)
        about = str(grant.id) if grant is not None else ""
        self._cookies.note(guest.visitor, notice, about, response)
        return response


@dataclass(frozen=True, slots=True)
class _Listed:
    """The user's grants, and what waits to become one."""

    grants: Sequence[Grant]
    asked_by: Mapping[UUID, str]
    """The caller that is to confirm, by the id of what waits."""

    def find(self, grant_id: str) -> Grant | None:
        """One of the user's own."""
        return next((grant for grant in self.grants if str(grant.id) == grant_id), None)
