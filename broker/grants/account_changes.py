"""What Google's word of an account or a token does to its grants, whoever's they are.

What waits for a confirmation is for `WaitingChanges`. All of it happens inside the caller's
transaction. Each change raises the grant's version, so that every replica forgets what it holds,
and a refresh that is under way brings nothing back.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from broker.clock import Clock
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.lookups import TokenLookups
from broker.grants.model import Grant
from broker.grants.rows import grant_from

_SQL = load_queries("broker.grants")


class AccountChanges:
    """Lock the accounts first, all of them; then find, then change."""

    def __init__(self, lookups: TokenLookups, clock: Clock) -> None:
        self._lookups = lookups
        self._clock = clock

    async def lock(self, connection: Connection, accounts: Iterable[str]) -> None:
        """Take turns with consents and withdrawals of these accounts, in the order of all."""
        for google_sub in sorted(set(accounts)):
            await connection.execute(_SQL["lock_account"], google_sub)

    async def find_by_account(self, connection: Connection, google_sub: str) -> Sequence[Grant]:
        """All but revoked ones, locked until the transaction ends."""
        rows = await connection.fetch(_SQL["lock_grants_of_account"], google_sub)
        return [grant_from(row) for row in rows]

    async def find_by_prefix(self, connection: Connection, prefix: str) -> Sequence[Grant]:
        """Whose refresh token begins with these 16 characters."""
        lookups = self._lookups.of_prefix(prefix)
        rows = await connection.fetch(_SQL["find_by_token_prefix"], lookups)
        return [grant_from(row) for row in rows]

    async def find_by_digest(self, connection: Connection, digest: bytes) -> Sequence[Grant]:
        """Whose refresh token has this `double_digest`."""
        lookups = self._lookups.of_digest(digest)
        rows = await connection.fetch(_SQL["find_by_token_digest"], lookups)
        return [grant_from(row) for row in rows]

    async def given_up_at(self, connection: Connection, google_sub: str) -> datetime | None:
        """When a token of the account was last revoked or replaced, as far as it is remembered."""
        at: datetime | None = await connection.fetchval(_SQL["find_given_up"], google_sub)
        return at

    async def erase(self, connection: Connection, grant: Grant, reason: str) -> None:
        """Only a new consent mends it: all its tokens are erased, and nobody is told."""
        await self.forget_access_tokens(connection, grant.id)
        await connection.execute(_SQL["lose_refresh_token"], grant.id, reason, self._clock.now())

    async def hold_back(self, connection: Connection, grant: Grant) -> bool:
        """Hand nothing out until it is brought back; the refresh token is kept, sealed."""
        await self.forget_access_tokens(connection, grant.id)
        return _changed(await connection.execute(_SQL["hold_back"], grant.id, self._clock.now()))

    async def bring_back(self, connection: Connection, grant: Grant) -> bool:
        """Use again what was held back; False for what is not in use for another reason."""
        return _changed(await connection.execute(_SQL["bring_back"], grant.id, self._clock.now()))

    async def ask_anew(self, connection: Connection, grant: Grant) -> bool:
        """Forget the access tokens: the next who asks makes Google say how it stands."""
        await self.forget_access_tokens(connection, grant.id)
        return _changed(await connection.execute(_SQL["outdate"], grant.id))

    async def forget_access_tokens(self, connection: Connection, grant_id: UUID) -> None:
        """Erase those in the table."""
        await connection.execute(_SQL["forget_access_tokens"], grant_id)


def _changed(command_tag: str) -> bool:
    return not command_tag.endswith(" 0")
