"""What was refreshed while the primary was away: kept here, and written when it is back."""

import logging
from collections import deque
from dataclasses import dataclass
from uuid import UUID

from broker.database.database import StorageBusy, StorageUnavailable
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


@dataclass(frozen=True, slots=True)
class _Rotated:
    """A refresh token that Google sent in place of the one that the grant had then."""

    grant: Grant
    refresh_token: Secret

    def is_of(self, grant: Grant) -> bool:
        """Whether the grant is as it was then: later ones may have nothing to do with it."""
        then = self.grant
        return (grant.id, grant.version, grant.refresh_token_version) == (
            then.id,
            then.version,
            then.refresh_token_version,
        )


class UnsavedRefreshes:
    """A bounded memory; what goes over the bound is served while it is held, and never written."""

    def __init__(self, grants: GrantStore) -> None:
        self._grants = grants
        self._waiting: dict[tuple[UUID, str], _Unsaved] = {}
        self._rotated: dict[UUID, _Rotated] = {}
        self._given_up: deque[_Rotated] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def keep(
        self, grant: Grant, held_under: str, access_token: AccessToken, refresh_token: Secret | None
    ) -> None:
        """Remember what could not be written."""
        if len(self._waiting) < _AT_MOST:
            self._waiting[(grant.id, held_under)] = _Unsaved(grant, held_under, access_token)
            if refresh_token is not None:
                self._rotated[grant.id] = _Rotated(grant, refresh_token)

    def refresh_token(self, grant: Grant) -> Secret | None:
        """The refresh token that replaced the one of this grant, if it could not be written yet."""
        rotated = self._rotated.get(grant.id)
        return rotated.refresh_token if rotated is not None and rotated.is_of(grant) else None

    async def give_up(self, grant: Grant, refresh_token: Secret) -> None:
        """Have Google told to end a refresh token that came when its grant had ended or changed,
        unless somebody holds the account; as soon as that can be written down.
        """
        try:
            await self._grants.give_up(grant, refresh_token)
        except StorageUnavailable as error:
            logger.debug("a refresh token is given up later", extra={"reason": str(error)})
            if len(self._given_up) < _AT_MOST:
                self._given_up.append(_Rotated(grant, refresh_token))

    async def flush(self) -> None:
        """Write what waits. Raises `StorageUnavailable`; the rest then goes on waiting.

        What is in somebody's hands is passed over until the next time, and keeps no other waiting.
        """
        busy: StorageBusy | None = None
        for key, unsaved in list(self._waiting.items()):
            try:
                await self._save(key, unsaved)
            except StorageBusy as error:
                busy = error
        if not self._waiting:
            # Their grants have changed, and what was refreshed of them has been replaced since.
            self._given_up.extend(self._rotated.values())
            self._rotated.clear()
        for _ in range(len(self._given_up)):
            given_up = self._given_up[0]
            try:
                await self._grants.give_up(given_up.grant, given_up.refresh_token)
            except StorageBusy as error:
                busy = error
                self._given_up.append(given_up)
            self._given_up.popleft()
        if busy is not None:
            raise busy

    async def _save(self, key: tuple[UUID, str], unsaved: _Unsaved) -> None:
        grant = unsaved.grant
        refresh_token = self.refresh_token(grant)
        saved = await self._grants.save_refresh(
            grant,
            held_under=unsaved.held_under,
            access_token=unsaved.access_token,
            refresh_token=refresh_token,
        )
        if self._waiting.get(key) is unsaved:
            del self._waiting[key]
            if not self._waiting:
                logger.info("what was refreshed while storage was away is written")
        if refresh_token is not None and self.refresh_token(grant) is refresh_token:
            del self._rotated[grant.id]
            if saved is None:
                await self.give_up(grant, refresh_token)
