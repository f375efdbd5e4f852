"""Access to the connections page: opens visits, identifies visitors, checks forms, signs out.

It knows nothing of grants. Where it returns a response instead of a visitor, access is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from broker.audit.trail import AuditTrail
from broker.connections.connections_pages import TranslatedConnectionsPages
from broker.connections.visitor_cookies import FormAction, Visitor, VisitorCookies
from broker.connections.visits import PAGE_PATH, Visit, Visits, VisitTokenFault
from broker.consent.link_policies import LinkPolicies
from broker.grants.model import Grant
from broker.pages.browser_input import is_from_own_page, read_cookies, read_form
from broker.pages.user_agents import is_preview

CLOSED_PATH = f"{PAGE_PATH}/closed"


@dataclass(frozen=True, slots=True)
class ActiveVisitor:
    """A visitor whose visit is active."""

    visitor: Visitor
    visit: Visit


@dataclass(frozen=True, slots=True)
class VerifiedForm:
    """A form that an active visitor sent from their own page."""

    sent_by: ActiveVisitor
    grant_id: str
    """The grant that the form names; it may be another user's."""


class PageAccess:
    """Decides who may see the page, and whose forms count."""

    def __init__(
        self,
        *,
        pages: TranslatedConnectionsPages,
        visits: Visits,
        cookies: VisitorCookies,
        policies: LinkPolicies,
        audit: AuditTrail,
        own_origins: Sequence[str],
    ) -> None:
        self._pages = pages
        self._visits = visits
        self._cookies = cookies
        self._policies = policies
        self._audit = audit
        self._own_origins = tuple(own_origins)

    async def open(self, request: Request, unverified_token: str) -> Response:
        """Start the visit of the first browser that opens a link; it may open the link again."""
        visit_id = self._visits.verify(unverified_token)
        if isinstance(visit_id, VisitTokenFault):
            is_expired = visit_id is VisitTokenFault.EXPIRED
            return self._refuse_unauthenticated(
                request, "link_expired" if is_expired else "link_not_ours"
            )
        created = await self._visits.find(visit_id)
        if created is not None and not created.is_opened and not self._may_be_opened(created):
            return self._refuse(request, created, "link_withdrawn")
        visitor = self._cookies.create()
        visit = await self._visits.open(visit_id, visitor.hash)
        if visit is not None:
            self.record(request, visit, "connections_page", "opened")
            response = self._pages.frame.redirect(PAGE_PATH)
            self._cookies.set_visitor(visitor, response)
            return response
        return await self._refuse_to_open(request, await self._visits.find(visit_id))

    async def _refuse_to_open(self, request: Request, visit: Visit | None) -> Response:
        """Answer a browser whose link is used, expired or purged; it may have used it itself."""
        if visit is None:
            return self._refuse_unauthenticated(request, "link_expired")
        if not visit.is_opened:
            return self._refuse(request, visit, "link_expired", shows_way_back=True)
        known = await self.identify(request)
        if isinstance(known, ActiveVisitor) and known.visit.id == visit.id:
            return self._pages.frame.redirect(PAGE_PATH)
        return self._refuse(request, visit, "link_used")

    async def identify(self, request: Request) -> ActiveVisitor | Response:
        """Return the visitor of a request; a page instead if their visit is not active."""
        visitor = self._cookies.identify(read_cookies(request))
        if visitor is None:
            return self.refused(request, "no_visit")
        visit = await self._visits.find_by_visitor(visitor.hash)
        if visit is None or not self._visits.is_active(visit):
            return self.refused(request, "visit_over", visit)
        if self._policies.find_caller(visit.caller) is None:
            # The caller that sent them is not in the callers file any more.
            return self.refused(request, "visit_over")
        return ActiveVisitor(visitor, visit)

    async def verify_form(self, request: Request, action: FormAction) -> VerifiedForm | Response:
        """Return the form of a request; a page instead if it is not the visitor's own."""
        if not is_from_own_page(request, self._own_origins):
            return self._refuse_unauthenticated(request, "form_not_ours")
        form = await read_form(request)
        if form is None:
            return self.refused(request, "malformed")
        sent_by = await self.identify(request)
        if isinstance(sent_by, Response):
            return sent_by
        grant_id, token = form.get("grant", ""), form.get("token", "")
        if not self._cookies.is_form_token(token, sent_by.visitor, action, grant_id):
            return self._refuse(request, sent_by.visit, "form_not_ours")
        return VerifiedForm(sent_by, grant_id)

    async def leave(self, request: Request) -> Response:
        """End the visit, in all tabs. A visit that is over stays so."""
        visit = await self._visit_of(request)
        if visit is not None and not self._visits.is_active(visit):
            return self._pages.frame.redirect(CLOSED_PATH)
        form = await self.verify_form(request, FormAction.LEAVE)
        if isinstance(form, Response):
            return form
        await self._visits.end(form.sent_by.visit)
        self.record(request, form.sent_by.visit, "connections_page", "closed")
        response = self._pages.frame.redirect(CLOSED_PATH)
        self._cookies.invalidate_kept_pages(response)
        return response

    async def closed(self, request: Request) -> Response:
        """Show that the visitor is signed out."""
        if is_preview(request):
            return self._pages.frame.preview_response(request)
        visit = await self._visit_of(request)
        if visit is not None and self._visits.is_active(visit):
            return self._pages.frame.redirect(PAGE_PATH)
        response = self.refused(request, "closed", visit)
        self._cookies.delete_notice(response)
        return response

    async def extend(self, visitor: ActiveVisitor) -> None:
        """Keep the visit active for a visitor who leaves for Google and returns."""
        await self._visits.extend(visitor.visit)

    def shown_name(self, caller_name: str) -> str:
        """Return the display name of a caller."""
        return self._policies.shown_name(caller_name)

    def refused(self, request: Request, key: str, visit: Visit | None = None) -> Response:
        """Return a page of text, with the way back to the caller if `visit` is given."""
        return self._pages.for_reader(request).refused(
            key,
            request_id=request.state.request_id,
            visit=self._with_listed_return(visit) if visit is not None else None,
            service=self.shown_name(visit.caller) if visit is not None else "",
        )

    def record(
        self,
        request: Request,
        visit: Visit,
        action: str,
        outcome: str,
        grant: Grant | None = None,
    ) -> None:
        """Write an audit record; those without a grant are capped per minute."""
        self._audit.record(
            action=action,
            outcome=outcome,
            caller=visit.caller,
            user_id=visit.user_id,
            account_sub=grant.google_sub if grant is not None else None,
            scopes=grant.scopes if grant is not None else (),
            request_id=request.state.request_id,
            # Withdrawals are bounded by the grants that there are.
            unauthenticated=grant is None,
        )

    async def _visit_of(self, request: Request) -> Visit | None:
        """Return the visit of this browser; it may be over."""
        visitor = self._cookies.identify(read_cookies(request))
        return await self._visits.find_by_visitor(visitor.hash) if visitor is not None else None

    def _may_be_opened(self, visit: Visit) -> bool:
        """True if the callers file in force lets its caller create such a link."""
        return self._policies.linking_caller(visit.caller, visit.user_id) is not None

    def _with_listed_return(self, visit: Visit) -> Visit:
        """Drop `return_to` if its caller's policy no longer lists it."""
        caller = self._policies.find_caller(visit.caller)
        is_listed = caller is not None and visit.return_to in caller.return_to
        return visit if is_listed else replace(visit, return_to=None)

    def _refuse(
        self, request: Request, visit: Visit, key: str, *, shows_way_back: bool = False
    ) -> Response:
        self.record(request, visit, "connections_page", f"refused:{key}")
        return self.refused(request, key, visit if shows_way_back else None)

    def _refuse_unauthenticated(self, request: Request, key: str) -> Response:
        """Refuse and record a request whose user is not known."""
        self._audit.record(
            action="connections_page",
            outcome=f"refused:{key}",
            request_id=request.state.request_id,
            unauthenticated=True,
        )
        return self.refused(request, key)
