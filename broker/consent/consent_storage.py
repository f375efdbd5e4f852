"""Stores a consent: as a grant, or as a pending consent if it must be confirmed.

A callback reads the user's grants once, after the code exchange, and decides with what it read.
`GrantStore.connect` and `PendingConsents.add` read the account's grant again under its lock: scopes
that it got meanwhile are kept, and a revocation that began meanwhile refuses the consent.
"""

import logging
from collections.abc import Callable
from enum import Enum, auto

from broker.consent.authorization_requests import AuthorizationRequests, ConsumedRequest
from broker.consent.consent_outcomes import AwaitingConfirmation, Connected
from broker.consent.consent_records import ConsentRecords
from broker.consent.links import ConnectLink, ConnectLinks
from broker.consent.scope_rules import EarlierGrants
from broker.database.database import StorageUnavailable
from broker.grants.model import (
    AccessToken,
    Consent,
    Grant,
    NoRefreshTokenError,
    RevocationUnderWayError,
)
from broker.grants.pending_consents.store import PendingConsents
from broker.grants.store import GrantStore
from broker.scopes import is_within, missing

logger = logging.getLogger(__name__)

OnConnected = Callable[[str, Grant, AccessToken | None], None]
"""Called with the user id, the stored grant, and its first access token if it was kept."""


class NotStored(Enum):
    """Why a consent was not stored. Its link can be used again, except for `LINK_USED`."""

    LINK_USED = auto()
    NO_REFRESH_TOKEN = auto()
    REVOCATION_UNDER_WAY = auto()


class ConsentStorage:
    """Reads a user's grants for a callback, and stores its consent.

    All methods raise `StorageUnavailable`.
    """

    def __init__(
        self,
        *,
        links: ConnectLinks,
        grants: GrantStore,
        pending: PendingConsents,
        on_connected: OnConnected,
    ) -> None:
        self._links = links
        self._grants = grants
        self._pending = pending
        self._on_connected = on_connected

    async def read_earlier_grants(self, link: ConnectLink) -> EarlierGrants:
        """Return what the link's user has granted so far."""
        grants = await self._grants.list(link.user_id)
        if not link.confirm:
            return EarlierGrants(grants)
        pending = await self._pending.find_for_users([link.user_id])
        return EarlierGrants(grants, pending.get(link.user_id, ()))

    async def reject(self, consent: Consent) -> None:
        """Undo a consent of another account than the link names, at Google too."""
        await self._pending.reject(consent)

    async def store(
        self, consumed: ConsumedRequest, consent: Consent
    ) -> Connected | AwaitingConfirmation | NotStored:
        """Complete the link and store its consent. If that fails, the link can be used again."""
        link = consumed.link
        if not await self._links.complete(link):
            return NotStored.LINK_USED
        try:
            return await (self._add_pending if link.confirm else self._connect)(consumed, consent)
        except NoRefreshTokenError:
            await self._release(link)
            return NotStored.NO_REFRESH_TOKEN
        except RevocationUnderWayError:
            await self._release(link)
            return NotStored.REVOCATION_UNDER_WAY
        except BaseException:
            await self._release(link)
            raise

    async def _connect(self, consumed: ConsumedRequest, consent: Consent) -> Connected:
        grant = await self._grants.connect(consent)
        token = consent.access_token
        if token is not None and not is_within(token.scopes, grant.scopes):
            # A revocation ended an earlier consent meanwhile, whose scopes the token has.
            token = None
        self._on_connected(grant.user_id, grant, token)
        return Connected(consumed.link, grant, missing(consumed.request.scopes, grant.scopes))

    async def _add_pending(
        self, consumed: ConsumedRequest, consent: Consent
    ) -> AwaitingConfirmation:
        link = consumed.link
        assert link.return_to is not None  # noqa: S101  (`LinkPolicies.apply` guarantees it)
        pending, code = await self._pending.add(consent, link_id=link.id, caller=link.caller)
        return AwaitingConfirmation(link, link.return_to, pending.as_grant(), code)

    async def _release(self, link: ConnectLink) -> None:
        try:
            await self._links.release(link)
        except StorageUnavailable as error:
            logger.warning(
                "a link stays used although its consent was not stored: PostgreSQL is unavailable",
                extra={"event": "connect_link_not_released", "reason": str(error)},
            )


class ConsentPurge:
    """Deletes what has expired: pending consents, authorization requests and links."""

    def __init__(
        self,
        *,
        pending: PendingConsents,
        requests: AuthorizationRequests,
        links: ConnectLinks,
        records: ConsentRecords,
    ) -> None:
        self._pending = pending
        self._requests = requests
        self._links = links
        self._records = records

    async def purge(self) -> None:
        """End consents that were not confirmed in time; delete expired requests and links.

        Raises `StorageUnavailable`.
        """
        for pending in await self._pending.expire():
            self._records.confirmation_expired(pending)
        await self._requests.purge()
        await self._links.purge()
