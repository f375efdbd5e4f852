"""The way in and out of the page of connections: who is let in, and whose forms count.

Knows nothing of grants. A page instead of a guest is what somebody is shown who is not let in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from broker.audit.trail import AuditTrail
from broker.callers.model import Permission
from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.connections.pages import TranslatedConnectionsPages
from broker.connections.visit_links import PAGE_PATH, LinkFault, VisitLinks
from broker.connections.visitors import Deed, Visitor, VisitorCookies
from broker.connections.visits import Visit, Visits
from broker.grants.model import Grant
from broker.pages.cookies import cookies_of
from broker.pages.forms import is_from_own_page, read_form
from broker.pages.visitors import is_only_looking

CLOSED_PATH = f"{PAGE_PATH}/closed"


@dataclass(frozen=True, slots=True)
class Guest:
    """A visitor whose visit is open."""

    visitor: Visitor
    visit: Visit


@dataclass(frozen=True, slots=True)
class Act:
    """A form that is a guest's own."""

    guest: Guest
    about: str
    """The id of the grant that it names; whether it is one of theirs is still to be seen."""


class Doorway:
    """Opens visits, knows visitors again, and lets them go."""

    def __init__(
        self,
        *,
        pages: TranslatedConnectionsPages,
        visits: Visits,
        links: VisitLinks,
        cookies: VisitorCookies,
        registry: CallerRegistry,
        audit: AuditTrail,
        clock: Clock,
        own_origins: Sequence[str],
    ) -> None:
        self._pages = pages
        self._visits = visits
        self._links = links
        self._cookies = cookies
        self._registry = registry
        self._audit = audit
        self._clock = clock
        self._own_origins = tuple(own_origins)

    async def open(self, request: Request, unverified_token: str) -> Response:
        """Let the first browser in that opens a link; it may open it again while it is inside."""
        visit_id = self._links.read(unverified_token, now=self._clock.now())
        if isinstance(visit_id, LinkFault):
            key = "link_expired" if visit_id is LinkFault.EXPIRED else "link_not_ours"
            return self._refused_stranger(request, key)
        made = await self._visits.find(visit_id)
        if made is not None and not made.is_opened and not self._could_be_made(made):
            self.record(request, made, "connections_page", "refused:link_withdrawn")
            return self.refused(request, "link_withdrawn")
        visitor = self._cookies.new()
        visit = await self._visits.open(visit_id, visitor.hash)
        if visit is not None:
            self.record(request, visit, "connections_page", "opened")
            response = self._pages.frame.redirect(PAGE_PATH)
            self._cookies.remember(visitor, response)
            return response
        known = await self._visits.find(visit_id)
        if known is None:
            return self._refused_stranger(request, "link_expired")
        if not known.is_opened:
            self.record(request, known, "connections_page", "refused:link_expired")
            return self.refused(request, "link_expired", known)
        guest = await self.guest(request)
        if isinstance(guest, Guest) and guest.visit.id == visit_id:
            return self._pages.frame.redirect(PAGE_PATH)
        self.record(request, known, "connections_page", "refused:link_used")
        return self.refused(request, "link_used")

    async def guest(self, request: Request) -> Guest | Response:
        """Who this is; a page instead if they may not see anything."""
        visitor = self._cookies.of(cookies_of(request))
        visit = await self._visits.of(visitor.hash) if visitor is not None else None
        if visitor is None:
            return self.refused(request, "no_visit")
        if visit is None or not visit.is_open(self._clock.now()):
            return self.refused(request, "visit_over", visit)
        if self._registry.named(visit.caller) is None:
            # Whoever let them in is not trusted with anything any more.
            return self.refused(request, "visit_over")
        return Guest(visitor, visit)

    async def act(self, request: Request, deed: Deed) -> Act | Response:
        """Who acts, and on what; a page instead if the form is not their own."""
        if not is_from_own_page(request, self._own_origins):
            return self._refused_stranger(request, "form_not_ours")
        form = await read_form(request)
        if form is None:
            return self.refused(request, "malformed")
        guest = await self.guest(request)
        if isinstance(guest, Response):
            return guest
        about = form.get("grant", "")
        if not self._cookies.has_made(form.get("token", ""), guest.visitor, deed, about):
            self.record(request, guest.visit, "connections_page", "refused:form_not_ours")
            return self.refused(request, "form_not_ours")
        return Act(guest, about)

    async def leave(self, request: Request) -> Response:
        """The visit ends, in all tabs; once it has, there is nothing more to end."""
        visit = await self._visit_of(request)
        if visit is not None and not visit.is_open(self._clock.now()):
            return self._pages.frame.redirect(CLOSED_PATH)
        act = await self.act(request, Deed.LEAVE)
        if isinstance(act, Response):
            return act
        await self._visits.end(act.guest.visit)
        self.record(request, act.guest.visit, "connections_page", "closed")
        response = self._pages.frame.redirect(CLOSED_PATH)
        self._cookies.drop_kept_pages(response)
        return response

    async def closed(self, request: Request) -> Response:
        """Where a visitor who is done ends."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        visit = await self._visit_of(request)
        if visit is not None and visit.is_open(self._clock.now()):
            return self._pages.frame.redirect(PAGE_PATH)
        response = self.refused(request, "closed", visit)
        self._cookies.told(response)
        return response

    async def _visit_of(self, request: Request) -> Visit | None:
        """The visit of this browser, which may be over."""
        visitor = self._cookies.of(cookies_of(request))
        return await self._visits.of(visitor.hash) if visitor is not None else None

    async def prolong(self, guest: Guest) -> None:
        """A guest goes to Google, and is to find the page open on coming back."""
        await self._visits.prolong(guest.visit)

    def service(self, caller_name: str) -> str:
        """The name that people know."""
        caller = self._registry.named(caller_name)
        return caller.shown_name if caller is not None else caller_name

    def _could_be_made(self, visit: Visit) -> bool:
        """Whether the callers file that is in force lets its caller make such a link."""
        caller = self._registry.named(visit.caller)
        return (
            caller is not None
            and caller.may(Permission.LINKS_CREATE)
            and caller.may_act_for(visit.user_id)
        )

    def _with_listed_return(self, visit: Visit) -> Visit:
        """With the way back only if its caller's policy still lists it."""
        caller = self._registry.named(visit.caller)
        is_listed = caller is not None and visit.return_to in caller.return_to
        return visit if is_listed else replace(visit, return_to=None)

    def refused(self, request: Request, key: str, visit: Visit | None = None) -> Response:
        """A page of words, with the way back if one is known."""
        return self._pages.for_reader(request).refused(
            key,
            request_id=request.state.request_id,
            visit=self._with_listed_return(visit) if visit is not None else None,
            service=self.service(visit.caller) if visit is not None else "",
        )

    def _refused_stranger(self, request: Request, key: str) -> Response:
        """Put on record, without a word of what somebody merely says."""
        self._audit.record(
            action="connections_page",
            outcome=f"refused:{key}",
            request_id=request.state.request_id,
            from_stranger=True,
        )
        return self.refused(request, key)

    def record(
        self,
        request: Request,
        visit: Visit,
        action: str,
        outcome: str,
        grant: Grant | None = None,
    ) -> None:
        """Leave an audit record of what a visitor did; many of one kind share one."""
        self._audit.record(
            action=action,
            outcome=outcome,
            caller=visit.caller,
            user_id=visit.user_id,
            account_sub=grant.google_sub if grant is not None else None,
            scopes=grant.scopes if grant is not None else (),
            request_id=request.state.request_id,
            # A withdrawal has an effect, and so an end.
            from_stranger=grant is None,
        )
