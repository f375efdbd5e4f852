"""Connects an account again: a connect link like a caller's own, for the scopes that the grant had.

It requests nothing that the caller who sent the user to the page could not request itself now.
"""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from broker.audit.trail import AuditTrail
from broker.connections.visits import Visit
from broker.consent.link_policies import LinkPolicies
from broker.consent.links import ConnectLinks, LinkTokens
from broker.grants.model import Grant, GrantStatus
from broker.scopes import IDENTITY_SCOPES, canonical, missing
from broker.settings import ALWAYS_REQUESTED

_FIXED_BY_CONSENT = (GrantStatus.REAUTHORIZATION_REQUIRED, GrantStatus.REVOKED)


class Reconnection:
    """Starts consents for visitors of the connections page."""

    def __init__(
        self,
        *,
        policies: LinkPolicies,
        links: ConnectLinks,
        tokens: LinkTokens,
        audit: AuditTrail,
        redirect_uri: str,
        return_to: str,
        google_origins: Callable[[], Awaitable[Sequence[str]]],
    ) -> None:
        """`return_to` is the connections page. `google_origins` returns the origins through which
        the redirects lead.
        """
        self._policies = policies
        self._links = links
        self._tokens = tokens
        self._audit = audit
        self._redirect_uri = redirect_uri
        self._return_to = return_to
        self._google_origins = google_origins

    async def google_origins(self) -> Sequence[str]:
        """Return the origins to which a form that starts a consent redirects."""
        return await self._google_origins()

    def scopes(self, visit: Visit, grant: Grant) -> Sequence[str]:
        """Return the scopes to request; none if no consent from here can fix the grant."""
        caller = self._policies.linking_caller(visit.caller, visit.user_id)
        if (
            grant.status not in _FIXED_BY_CONSENT
            or caller is None
            # The confirmation code goes to the caller's own address, never to this page.
            or caller.require_confirmation
        ):
            return ()
        had = [scope for scope in grant.scopes if canonical(scope) not in IDENTITY_SCOPES]
        allowed = self._policies.allowed_of(had, caller)
        if had and not allowed:
            return ()
        return (*ALWAYS_REQUESTED, *missing(allowed, ALWAYS_REQUESTED))

    async def start(self, visit: Visit, grant: Grant, *, request_id: str) -> str | None:
        """Return the connect link's URL. None if `scopes` returns none.

        Raises `StorageUnavailable`.
        """
        scopes = self.scopes(visit, grant)
        if not scopes:
            return None
        link = await self._links.create(
            caller=visit.caller,
            user_id=visit.user_id,
            scopes=scopes,
            redirect_uri=self._redirect_uri,
            return_to=self._return_to,
            login_hint=grant.google_sub,
        )
        self._audit.record(
            action="connect_link",
            outcome="created_by_user",
            caller=visit.caller,
            user_id=visit.user_id,
            account_sub=grant.google_sub,
            scopes=scopes,
            request_id=request_id,
            unauthenticated=True,
        )
        return self._tokens.url(link)

    async def result(self, visit: Visit, unverified_link_id: str) -> tuple[str, bool] | None:
        """Return the `sub` of the account that a visitor returns for, and True if it was connected.

        Anyone can write what the URL says about that, so the link's row decides.
        """
        link_id = _uuid(unverified_link_id)
        link = await self._links.find(link_id) if link_id is not None else None
        if link is None or link.login_hint is None:
            return None
        started_here = (visit.caller, visit.user_id, self._return_to)
        if (link.caller, link.user_id, link.return_to) != started_here:
            return None
        return link.login_hint, link.completed_at is not None


def _uuid(unverified: str) -> UUID | None:
    try:
        return UUID(unverified)
    except ValueError:
        return None
