"""The connections page on the public listener: what it shows, and what each of its forms does.

A browser is redirected to the page itself, and to a connect link of the broker's own. A GET changes
nothing; only forms that are verified as the visitor's own do.
"""

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.clock import Clock
from broker.connections.connections_pages import (
    Connection,
    Overview,
    TranslatedConnectionsPages,
)
from broker.connections.page_access import CLOSED_PATH, ActiveVisitor, PageAccess, VerifiedForm
from broker.connections.reconnection import Reconnection
from broker.connections.visitor_cookies import FormAction, Notice, VisitorCookies
from broker.connections.visits import PAGE_PATH
from broker.grants.model import Grant, GrantStatus
from broker.grants_api.user_grants import ListedGrants, UserGrants
from broker.pages.browser_input import read_cookies
from broker.pages.user_agents import is_preview
from broker.revocations.revoker import Revoker
from broker.web.parameters import read_query

WITHDRAW_PATH = f"{PAGE_PATH}/withdraw"
CONNECT_PATH = f"{PAGE_PATH}/connect"
LEAVE_PATH = f"{PAGE_PATH}/leave"

_SHOWN_AFTER_WITHDRAWAL = timedelta(days=30)


class ConnectionsPage:
    """Handlers of the page."""

    def __init__(
        self,
        *,
        access: PageAccess,
        pages: TranslatedConnectionsPages,
        cookies: VisitorCookies,
        grants: UserGrants,
        revoker: Revoker,
        reconnection: Reconnection,
        clock: Clock,
    ) -> None:
        self._access = access
        self._pages = pages
        self._cookies = cookies
        self._grants = grants
        self._revoker = revoker
        self._reconnection = reconnection
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        """Return the routes, for the public listener."""
        return [
            Route(PAGE_PATH, self.show, methods=["GET"]),
            Route(WITHDRAW_PATH, self.withdraw, methods=["GET", "POST"]),
            Route(CONNECT_PATH, self.connect, methods=["POST"]),
            Route(LEAVE_PATH, self._access.leave, methods=["POST"]),
            Route(CLOSED_PATH, self._access.closed, methods=["GET"]),
        ]

    # The page.

    async def show(self, request: Request) -> Response:
        """Show the page, open the link that leads to it, or handle the return from Google."""
        if is_preview(request):
            return self._pages.frame.preview_response(request)
        query = read_query(request.scope["query_string"])
        if query is None:
            return self._access.refused(request, "malformed")
        if "link" in query:
            return await self._access.open(request, query["link"])
        visitor = await self._access.identify(request)
        if isinstance(visitor, Response):
            return visitor
        if "link_id" in query:
            return await self._return_from_google(visitor, query["link_id"])
        response = await self._show_overview(request, visitor)
        self._cookies.delete_notice(response)
        return response

    async def _show_overview(self, request: Request, visitor: ActiveVisitor) -> Response:
        listed = await self._grants.list(visitor.visit.user_id)
        overview = self._overview(request, visitor, listed)
        can_connect = any(connection.connect_token for connection in overview.connections)
        targets = await self._reconnection.google_origins() if can_connect else ()
        return self._pages.for_reader(request).overview(overview, form_targets=targets)

    def _overview(self, request: Request, visitor: ActiveVisitor, listed: ListedGrants) -> Overview:
        now = self._clock.now()
        notice = self._cookies.read_notice(visitor.visitor, read_cookies(request))
        grant = listed.find(notice[1]) if notice is not None else None
        return Overview(
            visit=visitor.visit,
            service=self._access.shown_name(visitor.visit.caller),
            connections=[
                self._connection(visitor, grant, listed)
                for grant in listed.grants
                if grant.status is not GrantStatus.REVOKED
                or now - grant.updated_at < _SHOWN_AFTER_WITHDRAWAL
            ],
            leave_token=self._cookies.form_token(visitor.visitor, FormAction.LEAVE),
            notice=(notice[0], grant.email if grant else None) if notice is not None else None,
            now=now,
        )

    def _connection(self, visitor: ActiveVisitor, grant: Grant, listed: ListedGrants) -> Connection:
        use = self._grants.last_use(grant)
        asked_by = listed.confirming_callers.get(grant.id, visitor.visit.caller)
        can_connect = bool(self._reconnection.scopes(visitor.visit, grant))
        return Connection(
            grant=grant,
            asked_by=self._access.shown_name(asked_by),
            last_use=use,
            used_by=self._access.shown_name(use.by)
            if use is not None and use.by is not None
            else None,
            connect_token=self._form_token(visitor, FormAction.CONNECT, grant)
            if can_connect
            else None,
        )

    async def _return_from_google(
        self, visitor: ActiveVisitor, unverified_link_id: str
    ) -> Response:
        """Redirect to the page without the query, with a notice of the result."""
        response = self._pages.frame.redirect(PAGE_PATH)
        result = await self._reconnection.result(visitor.visit, unverified_link_id)
        if result is not None:
            google_sub, is_completed = result
            for grant in await self._grants.list_stored(visitor.visit.user_id):
                if grant.google_sub == google_sub:
                    is_connected = is_completed and grant.status is GrantStatus.ACTIVE
                    notice = Notice.CONNECTED if is_connected else Notice.NOT_CONNECTED
                    self._cookies.set_notice(visitor.visitor, notice, str(grant.id), response)
        return response

    # Its forms.

    async def withdraw(self, request: Request) -> Response:
        """Ask for confirmation (GET), then withdraw (POST)."""
        if request.method == "POST":
            return await self._withdraw(request)
        if is_preview(request):
            return self._pages.frame.preview_response(request)
        visitor = await self._access.identify(request)
        if isinstance(visitor, Response):
            return visitor
        query = read_query(request.scope["query_string"]) or {}
        listed = await self._grants.list(visitor.visit.user_id)
        grant = listed.find(query.get("grant", ""))
        if grant is None or grant.status is GrantStatus.REVOKED:
            return self._redirect_with_notice(visitor, Notice.ALREADY_WITHDRAWN, grant)
        return self._pages.for_reader(request).confirmation(
            self._connection(visitor, grant, listed),
            self._overview(request, visitor, listed),
            withdraw_token=self._form_token(visitor, FormAction.WITHDRAW, grant),
        )

    async def _withdraw(self, request: Request) -> Response:
        form = await self._access.verify_form(request, FormAction.WITHDRAW)
        if isinstance(form, Response):
            return form
        visitor, grant = form.sent_by, await self._grant_of(form)
        if grant is None:
            return self._redirect_with_notice(visitor, Notice.ALREADY_WITHDRAWN, None)
        revoked = await self._revoker.revoke(visitor.visit.user_id, grant.google_sub, origin="user")
        for ended in revoked:
            self._access.record(request, visitor.visit, "grant_revoked", "by_user", ended)
        if not revoked:
            return self._redirect_with_notice(visitor, Notice.ALREADY_WITHDRAWN, grant)
        # A grant comes before a pending consent of the same account, and its row stays, so that
        # the notice can name the account.
        return self._redirect_with_notice(visitor, Notice.WITHDRAWN, revoked[0])

    async def connect(self, request: Request) -> Response:
        """Start a consent for the scopes of a broken or withdrawn connection."""
        form = await self._access.verify_form(request, FormAction.CONNECT)
        if isinstance(form, Response):
            return form
        visitor, grant = form.sent_by, await self._grant_of(form)
        url = (
            await self._reconnection.start(
                visitor.visit, grant, request_id=request.state.request_id
            )
            if grant is not None
            else None
        )
        if url is None:
            return self._redirect_with_notice(visitor, Notice.CANNOT_CONNECT, grant)
        await self._access.extend(visitor)
        return self._pages.frame.redirect(url)

    async def _grant_of(self, form: VerifiedForm) -> Grant | None:
        return (await self._grants.list(form.sent_by.visit.user_id)).find(form.grant_id)

    def _form_token(self, visitor: ActiveVisitor, action: FormAction, grant: Grant) -> str:
        return self._cookies.form_token(visitor.visitor, action, str(grant.id))

    def _redirect_with_notice(
        self, visitor: ActiveVisitor, notice: Notice, grant: Grant | None
    ) -> Response:
        response = self._pages.frame.redirect(PAGE_PATH)
        grant_id = str(grant.id) if grant is not None else ""
        self._cookies.set_notice(visitor.visitor, notice, grant_id, response)
        return response
