"""A user's grants as lists show them: with pending consents, and with the last use of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.clock import rfc3339
from broker.grants.last_uses import LastUses
from broker.grants.model import Grant, GrantStatus, LastUse
from broker.grants.pending_consents.model import PendingConsent
from broker.grants.pending_consents.store import PendingConsents
from broker.grants.store import GrantStore


@dataclass(frozen=True, slots=True)
class ListedGrants:
    """All grants of one user, the oldest first; pending consents have the status of one."""

    grants: Sequence[Grant]
    confirming_callers: Mapping[UUID, str]
    """The caller that must confirm a pending consent, by the consent's id."""

    def find(self, grant_id: str) -> Grant | None:
        """Return the user's own grant with this id."""
        return next((grant for grant in self.grants if str(grant.id) == grant_id), None)


class UserGrants:
    """Reads the lists."""

    def __init__(self, grants: GrantStore, pending: PendingConsents, last_uses: LastUses) -> None:
        self._grants = grants
        self._pending = pending
        self._last_uses = last_uses

    async def list(self, user_id: str) -> ListedGrants:
        """Return the user's grants, revoked ones too. Raises `StorageUnavailable`."""
        grants = await self._grants.list(user_id)
        pending = (await self._pending.find_for_users([user_id])).get(user_id, ())
        return ListedGrants(
            with_pending(grants, pending), {each.link_id: each.caller for each in pending}
        )

    async def list_stored(self, user_id: str) -> Sequence[Grant]:
        """Return the user's grants without pending consents. Raises `StorageUnavailable`."""
        return await self._grants.list(user_id)

    def last_use(self, grant: Grant) -> LastUse | None:
        """Return the last use of a grant, also if it is not written to the table yet."""
        return self._last_uses.latest(grant)

    def document(self, grant: Grant) -> dict[str, Any]:
        """Return a grant as the API shows it, never with a token."""
        last_use = self.last_use(grant)
        return {
            "account": {"sub": grant.google_sub, "email": grant.email},
            "scopes": list(grant.scopes),
            "status": grant.status.value,
            **({"reason": grant.reason} if grant.reason else {}),
            "default": grant.is_default,
            "connected_at": rfc3339(grant.connected_at),
            "updated_at": rfc3339(grant.updated_at),
            "last_used_at": rfc3339(last_use.at) if last_use else None,
        }


def with_pending(grants: Sequence[Grant], pending: Sequence[PendingConsent]) -> Sequence[Grant]:
    """Return the grants, each account without an active one replaced by its newest pending consent.

    `pending` has the newest first.
    """
    active = {grant.google_sub for grant in grants if grant.status is GrantStatus.ACTIVE}
    # Reversed, so that the newest of an account replaces the older ones in the mapping.
    shown = {
        each.google_sub: each.as_grant()
        for each in reversed(pending)
        if each.google_sub not in active
    }
    others = [grant for grant in grants if grant.google_sub not in shown]
    return sorted([*others, *shown.values()], key=lambda grant: grant.connected_at)
