"""The grants of one Google account, of all users: found and changed for security events.

The same for pending consents is `AccountPendingConsents` in `pending.table`. Each change raises the
grant's version, so that every replica drops its cached tokens, and a refresh under way stores
nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from broker.clock import Clock
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.model import Grant
from broker.grants.rows import grant_from

_SQL = load_queries("broker.grants")


class AccountGrants:
    """Each method is part of the caller's transaction: first lock all accounts, then find grants,
    then change them.
    """

    def __init__(self, fingerprints: TokenFingerprints, clock: Clock) -> None:
        self._fingerprints = fingerprints
        self._clock = clock

    async def lock(self, connection: Connection, accounts: Iterable[str]) -> None:
        """Serialise with consents and revocations of these accounts, in the order that all use."""
        for google_sub in sorted(set(accounts)):
            await connection.execute(_SQL["lock_account"], google_sub)

    async def find_by_account(self, connection: Connection, google_sub: str) -> Sequence[Grant]:
        """Return all but revoked grants, locked until the transaction ends."""
        rows = await connection.fetch(_SQL["lock_grants_of_account"], google_sub)
        return [grant_from(row) for row in rows]

    async def find_by_prefix(self, connection: Connection, prefix: str) -> Sequence[Grant]:
        """Return the grants whose refresh token begins with these 16 characters."""
        values = self._fingerprints.compute_for_prefix(prefix)
        rows = await connection.fetch(_SQL["find_by_token_prefix"], values)
        return [grant_from(row) for row in rows]

    async def find_by_digest(self, connection: Connection, digest: bytes) -> Sequence[Grant]:
        """Return the grants whose refresh token has this `double_digest`."""
        values = self._fingerprints.compute_for_digest(digest)
        rows = await connection.fetch(_SQL["find_by_token_digest"], values)
        return [grant_from(row) for row in rows]

    async def given_up_at(self, connection: Connection, google_sub: str) -> datetime | None:
        """Return when a token of the account was last revoked or replaced, if that is recorded."""
        at: datetime | None = await connection.fetchval(_SQL["find_given_up_at"], google_sub)
        return at

    async def erase_tokens(self, connection: Connection, grant: Grant, reason: str) -> None:
        """Erase all tokens of the grant without calling Google. Only a new consent restores it."""
        await self.delete_access_tokens(connection, grant.id)
        await connection.execute(_SQL["erase_refresh_token"], grant.id, reason, self._clock.now())

    async def suspend(self, connection: Connection, grant: Grant) -> bool:
        """Serve no token until `resume`; the sealed refresh token is kept. False if unchanged."""
        await self.delete_access_tokens(connection, grant.id)
        return _changed(
            await connection.execute(_SQL["suspend_grant"], grant.id, self._clock.now())
        )

    async def resume(self, connection: Connection, grant: Grant) -> bool:
        """Make a suspended grant active. False for a grant that is inactive for another reason."""
        return _changed(await connection.execute(_SQL["resume_grant"], grant.id, self._clock.now()))

    async def require_refresh(self, connection: Connection, grant: Grant) -> bool:
        """Delete the access tokens: the next request refreshes, and Google shows the state."""
        await self.delete_access_tokens(connection, grant.id)
        return _changed(await connection.execute(_SQL["raise_version"], grant.id))

    async def delete_access_tokens(self, connection: Connection, grant_id: UUID) -> None:
        """Delete the stored access tokens of a grant."""
        await connection.execute(_SQL["delete_access_tokens"], grant_id)


def _changed(command_tag: str) -> bool:
    return not command_tag.endswith(" 0")
