"""How far a consent reaches: no further than what its person was asked for in this user's name.

Google's answer also names what the same account has allowed this project elsewhere, for another
user of the product or another client (`include_granted_scopes`). Nobody was asked for that here.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from broker.consent.links import Link
from broker.consent.store import Trip
from broker.google.scopes import missing, shared
from broker.grants.model import GrantStatus
from broker.grants.pending.store import PendingConsents
from broker.grants.store import Consent, GrantStore

logger = logging.getLogger(__name__)


class Reach:
    """Takes from a consent what counts for this user. Raises `StorageUnavailable`."""

    def __init__(self, grants: GrantStore, pending: PendingConsents) -> None:
        self._grants = grants
        self._pending = pending

    async def of(self, trip: Trip, consent: Consent) -> Consent:
        """The consent with those of its scopes that this user was asked for, now or before.

        Its access token is left out where it carries more: it must not be handed out.
        """
        asked = (*trip.transaction.scopes, *await self._asked_before(trip.link, consent))
        scopes = shared(consent.scopes, asked)
        if scopes == consent.scopes:
            return consent
        beyond = missing(consent.scopes, scopes)
        # Also where Google calls by another name what it was asked for.
        logger.info(
            "scopes left out of a consent: this user was not asked for them",
            extra={"scopes": " ".join(beyond)},
        )
        return replace(consent, scopes=scopes, access_token=None, beyond=beyond)

    async def _asked_before(self, link: Link, consent: Consent) -> tuple[str, ...]:
        """What the user's grant of this account has, and what waits to become part of it."""
        grants = [
            (grant.google_sub, grant.scopes)
            for grant in await self._grants.list(consent.user_id)
            if grant.status is not GrantStatus.REVOKED
        ]
        kept = (*grants, *await self._waiting(link, consent.user_id))
        return tuple(
            scope
            for google_sub, scopes in kept
            if google_sub == consent.google_sub
            for scope in scopes
        )

    async def _waiting(self, link: Link, user_id: str) -> Sequence[tuple[str, tuple[str, ...]]]:
        """The accounts and scopes that wait for the confirmation that this link needs as well.

        Whose session those came from nobody knows yet: a link that needs none must not let them in,
        nor a caller that can confirm this one alone.
        """
        if not link.confirm:
            return []
        waiting = (await self._pending.of_users([user_id])).get(user_id, ())
        return [(each.google_sub, each.scopes) for each in waiting if each.caller == link.caller]
