"""Connecting an account again: a connect link like a caller's own, for what the grant had.

It asks for nothing that the caller who sent the user here could not ask for itself today.
"""

from collections.abc import Sequence
from uuid import UUID, uuid4

from broker.audit.trail import AuditTrail
from broker.callers.model import Permission
from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.connections.visits import Visit
from broker.consent.links import LINK_LIFE, Link, LinkTokens
from broker.consent.store import ConsentStore
from broker.google.scopes import IDENTITY_SCOPES, canonical, missing, shared
from broker.grants.model import Grant, GrantStatus
from broker.settings import IDENTITY_SCOPES as ALWAYS_ASKED

_MENDED_BY_CONSENT = (GrantStatus.REAUTHORIZATION_REQUIRED, GrantStatus.REVOKED)


class Reconnection:
    """Begins consents anew for visitors of the page."""

    def __init__(
        self,
        *,
        registry: CallerRegistry,
        store: ConsentStore,
        links: LinkTokens,
        audit: AuditTrail,
        clock: Clock,
        allowed_scopes: Sequence[str],
        redirect_uri: str,
        return_to: str,
    ) -> None:
        """`return_to` is the page itself, where the browser comes back to."""
        self._registry = registry
        self._store = store
        self._links = links
        self._audit = audit
        self._clock = clock
        self._allowed_scopes = tuple(allowed_scopes)
        self._redirect_uri = redirect_uri
        self._return_to = return_to

    def scopes(self, visit: Visit, grant: Grant) -> Sequence[str]:
        """What would be asked for; nothing where a consent can't mend it, or not from here."""
        caller = self._registry.named(visit.caller)
        if (
            grant.status not in _MENDED_BY_CONSENT
            or caller is None
            or not caller.may(Permission.LINKS_CREATE)
            or not caller.may_act_for(visit.user_id)
            # The code that would confirm it goes to the caller's own address, never to this page.
            or caller.require_confirmation
        ):
            return ()
        had = [scope for scope in grant.scopes if canonical(scope) not in IDENTITY_SCOPES]
        within = shared(shared(had, self._allowed_scopes), caller.scopes)
        if had and not within:
            return ()
        return (*ALWAYS_ASKED, *missing(within, ALWAYS_ASKED))

    async def begin(self, visit: Visit, grant: Grant, *, request_id: str) -> str | None:
        """Where to send the browser; nothing if it can't be done. Raises `StorageUnavailable`."""
        scopes = tuple(self.scopes(visit, grant))
        if not scopes:
            return None
        link = Link(
            id=uuid4(),
            caller=visit.caller,
            user_id=visit.user_id,
            scopes=scopes,
            redirect_uri=self._redirect_uri,
            return_to=self._return_to,
            login_hint=grant.google_sub,
            force_consent=False,
            expires_at=(self._clock.now() + LINK_LIFE).replace(microsecond=0),
            completed_at=None,
        )
        await self._store.add(link)
        self._audit.record(
            action="connect_link",
            outcome="created_by_user",
            caller=visit.caller,
            user_id=visit.user_id,
            account_sub=grant.google_sub,
            scopes=scopes,
            request_id=request_id,
            from_stranger=True,
        )
        return self._links.url(link)

    async def ended(self, visit: Visit, unverified_link_id: str) -> tuple[str, bool] | None:
        """The account that a visitor comes back for, and whether it was connected.

        What the address says of it anybody can write, so the link itself is looked at.
        """
        link_id = _uuid(unverified_link_id)
        link = await self._store.find(link_id) if link_id is not None else None
        if link is None or link.login_hint is None:
            return None
        begun_here = (visit.caller, visit.user_id, self._return_to)
        if (link.caller, link.user_id, link.return_to) != begun_here:
            return None
        return link.login_hint, link.completed_at is not None


def _uuid(unverified: str) -> UUID | None:
    try:
        return UUID(unverified)
    except ValueError:
        return None
