"""Seals stored tokens anew with the first key, while brokers serve, so that older keys can go.

Nothing is decided here about a token: whatever changed since it was read is left as it is now.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants.lookups import TokenLookups
from broker.grants.pending_lookups import WaitingLookupFill
from broker.grants.rows import GrantSealer, SealedAccessToken, grant_from, refresh_token_from
from broker.grants.sealing import Sealed, Sealer, UnsealingError

_SQL = load_queries("broker.grants")

_PORTION = 200
_BEFORE_ALL = UUID(int=0)

PASSING = frozenset({"consents that wait", "trips to Google"})
"""Kinds that are not sealed anew: they are over within the hour."""


@dataclass(slots=True)
class Tally:
    """How far it is."""

    resealed: int = 0
    unopened: int = 0
    """Tokens whose key is not configured, or that were altered or moved."""


class Resealer:
    """All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(self, database: Database, sealer: Sealer, lookups: TokenLookups) -> None:
        self._database = database
        self._key_id = sealer.current_key_id
        self._sealer = GrantSealer(sealer)
        self._lookups = lookups
        self._waiting = WaitingLookupFill(database, sealer, lookups)
        self.tally = Tally()

    async def in_use(self) -> Mapping[tuple[str, str], int]:
        """How many of each kind are sealed with which key."""
        rows = await self._database.fetch(_SQL["keys_in_use"])
        return {(row["kind"], row["key_id"]): row["sealed"] for row in rows}

    async def run(self) -> None:
        """Seal anew what is sealed with another key than the first. Safe to repeat, and at once.

        Each token is a transaction of its own, so that nobody who serves waits for more than one.
        """
        await self._all(_SQL["grants_to_reseal"], self._grant, lambda row: (row["id"],))
        await self._all(
            _SQL["access_tokens_to_reseal"],
            self._access_token,
            lambda row: (row["id"], row["scope_set"]),
            first=(_BEFORE_ALL, ""),
        )
        await self._all(_SQL["revocations_to_reseal"], self._revocation, lambda row: (row["id"],))
        # What waits is not sealed anew, but events are to find its token by the first key, too.
        await self._waiting.run()

    async def _all(
        self,
        query: str,
        reseal: Callable[[asyncpg.Record], Awaitable[bool]],
        place: Callable[[asyncpg.Record], tuple[object, ...]],
        *,
        first: tuple[object, ...] = (_BEFORE_ALL,),
    ) -> None:
        beyond = first
        while rows := await self._portion(query, beyond):
            for row in rows:
                beyond = place(row)
                try:
                    self.tally.resealed += await reseal(row)
                except UnsealingError:
                    self.tally.unopened += 1

    async def _portion(self, query: str, beyond: Sequence[object]) -> list[asyncpg.Record]:
        return await self._database.fetch(query, self._key_id, *beyond, _PORTION)

    async def _grant(self, row: asyncpg.Record) -> bool:
        grant, sealed = grant_from(row), refresh_token_from(row)
        if sealed is None:
            return False
        token = self._sealer.open_refresh_token(grant, sealed)
        new, lookups = self._sealer.seal_refresh_token(grant, token), self._lookups.of(token)
        async with self._database.transaction() as connection:
            if not await connection.fetchval(
                _SQL["reseal_grant"], grant.id, sealed.ciphertext, new.ciphertext, new.key_id
            ):
                return False
            # The table takes it for another token, and has forgotten how events may name it.
            await connection.execute(
                _SQL["put_lookups"], grant.id, lookups.key_id, lookups.prefix, lookups.digest
            )
            return True

    async def _access_token(self, row: asyncpg.Record) -> bool:
        grant, held_under = grant_from(row), row["scope_set"]
        held = SealedAccessToken(
            Sealed(row["access_token_key_id"], row["sealed_access_token"]),
            tuple(row["token_scopes"]),
            row["obtained_at"],
            row["expires_at"],
        )
        token = self._sealer.open_access_token(grant, held_under, held)
        new = self._sealer.seal_access_token(grant, held_under, token)
        done = await self._database.execute(
            _SQL["reseal_access_token"],
            grant.id,
            held_under,
            held.sealed.ciphertext,
            new.ciphertext,
            new.key_id,
        )
        return done == "UPDATE 1"

    async def _revocation(self, row: asyncpg.Record) -> bool:
        revocation_id, google_sub = UUID(bytes=row["id"].bytes), row["google_sub"]
        sealed = Sealed(row["token_key_id"], row["sealed_token"])
        token = self._sealer.open_revocation(revocation_id, google_sub, sealed)
        new = self._sealer.seal_revocation(revocation_id, google_sub, token)
        done = await self._database.execute(
            _SQL["reseal_revocation"], revocation_id, sealed.ciphertext, new.ciphertext, new.key_id
        )
        return done == "UPDATE 1"
