"""What was refreshed while the primary was away: kept here, and written when it is back."""

import logging
from dataclasses import dataclass
from uuid import UUID

from broker.grants.model import AccessToken, Grant
from broker.grants.store import GrantStore
from broker.secret import Secret

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""How often the primary is tried."""

_AT_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Unsaved:
    grant: Grant
    held_under: str
    access_token: AccessToken


class UnsavedRefreshes:
    """A bounded memory; what goes over the bound is served while it is held, and never written."""

    def __init__(self, grants: GrantStore) -> None:
        self._grants = grants
        self._waiting: dict[tuple[UUID, str], _Unsaved] = {}
        self._refresh_tokens: dict[UUID, Secret] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(
        self, grant: Grant, held_under: str, access_token: AccessToken, refresh_token: Secret | None
    ) -> None:
        """Remember what could not be written."""
        if len(self._waiting) < _AT_MOST:
            self._waiting[(grant.id, held_under)] = _Unsaved(grant, held_under, access_token)
            if refresh_token is not None:
                self._refresh_tokens[grant.id] = refresh_token

    def refresh_token(self, grant_id: UUID) -> Secret | None:
        """The refresh token that replaced the stored one, if it could not be written yet."""
        return self._refresh_tokens.get(grant_id)

    async def flush(self) -> None:
        """Write what waits. Raises `StorageUnavailable`; the rest then goes on waiting."""
        for key, unsaved in list(self._waiting.items()):
            saved = await self._grants.save_refresh(
                unsaved.grant,
                held_under=unsaved.held_under,
                access_token=unsaved.access_token,
                refresh_token=self._refresh_tokens.get(unsaved.grant.id),
            )
            if self._waiting.get(key) is unsaved:
                del self._waiting[key]
            if saved is not None:
                self._refresh_tokens.pop(unsaved.grant.id, None)
            if not self._waiting:
                self._refresh_tokens.clear()
                logger.info("what was refreshed while storage was away is written")
