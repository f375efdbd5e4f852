"""Write-behind of refreshes: kept in memory while the primary is unavailable, and written later."""

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
class _Unwritten:
    grant: Grant
    scope_set: str
    access_token: AccessToken


@dataclass(frozen=True, slots=True)
class _Rotated:
    """A refresh token that Google returned in place of the one that the grant had then."""

    grant: Grant
    refresh_token: Secret


def is_unchanged(now: Grant, then: Grant) -> bool:
    """True if the grant has neither changed nor got another refresh token."""
    return (now.id, now.version, now.refresh_token_version) == (
        then.id,
        then.version,
        then.refresh_token_version,
    )


class WriteBehind:
    """Bounded memory of unwritten refreshes; one over the bound is only cached, never written."""

    def __init__(self, grants: GrantStore) -> None:
        self._grants = grants
        self._unwritten: dict[tuple[UUID, str], _Unwritten] = {}
        self._rotated: dict[UUID, _Rotated] = {}
        self._late: deque[_Rotated] = deque()
        """Refresh tokens to be revoked at Google."""

    def __len__(self) -> int:
        return len(self._unwritten)

    def add(
        self, grant: Grant, scope_set: str, access_token: AccessToken, refresh_token: Secret | None
    ) -> None:
        """Keep a refresh that could not be written, and its rotated refresh token if it has one."""
        if len(self._unwritten) < _AT_MOST:
            self._unwritten[(grant.id, scope_set)] = _Unwritten(grant, scope_set, access_token)
            if refresh_token is not None:
                self._rotated[grant.id] = _Rotated(grant, refresh_token)

    def refresh_token(self, grant: Grant) -> Secret | None:
        """Return the unwritten refresh token that replaced the grant's, if there is one."""
        rotated = self._rotated.get(grant.id)
        if rotated is None or not is_unchanged(grant, rotated.grant):
            return None
        return rotated.refresh_token

    async def revoke_late(self, grant: Grant, refresh_token: Secret) -> None:
        """Have a refresh token revoked that came after its grant had ended or changed.

        It is not revoked while a live grant or a pending consent uses the account. Without a
        connection this is written later.
        """
        try:
            await self._grants.revoke_late_token(grant, refresh_token)
        except StorageUnavailable as error:
            logger.debug(
                "the revocation of a late refresh token is written later",
                extra={"event": "late_token_revocation_postponed", "reason": str(error)},
            )
            if len(self._late) < _AT_MOST:
                self._late.append(_Rotated(grant, refresh_token))

    async def flush(self) -> None:
        """Write everything. Raises `StorageUnavailable`; the rest stays for the next flush.

        A locked row is skipped until the next flush, and holds up no other.
        """
        busy: StorageBusy | None = None
        for key, unwritten in list(self._unwritten.items()):
            try:
                await self._write(key, unwritten)
            except StorageBusy as error:
                busy = error
        if not self._unwritten:
            # Their grants have changed since, and their refreshes were superseded.
            self._late.extend(self._rotated.values())
            self._rotated.clear()
        for _ in range(len(self._late)):
            late = self._late[0]
            try:
                await self._grants.revoke_late_token(late.grant, late.refresh_token)
            except StorageBusy as error:
                busy = error
                self._late.append(late)
            self._late.popleft()
        if busy is not None:
            raise busy

    async def _write(self, key: tuple[UUID, str], unwritten: _Unwritten) -> None:
        grant = unwritten.grant
        refresh_token = self.refresh_token(grant)
        saved = await self._grants.save_refresh(
            grant,
            scope_set=unwritten.scope_set,
            access_token=unwritten.access_token,
            refresh_token=refresh_token,
        )
        if self._unwritten.get(key) is unwritten:
            del self._unwritten[key]
            if not self._unwritten:
                logger.info(
                    "all refreshes from the outage of PostgreSQL are written",
                    extra={"event": "write_behind_flushed"},
                )
        if refresh_token is not None and self.refresh_token(grant) is refresh_token:
            del self._rotated[grant.id]
            if saved is None:
                await self.revoke_late(grant, refresh_token)
