"""Seals stored tokens anew with the first key, while brokers serve, so that older keys can go.

Nothing is decided here about a token: whatever changed since it was read is left as it is now.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.database.database import Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.grants.lookups import Lookups, TokenLookups
from broker.grants.pending.fingerprints import WaitingLookupFill
from broker.grants.rows import GrantSealer, SealedAccessToken, grant_from, refresh_token_from

_SQL = load_queries("broker.grants")

_PORTION = 100
"""Sealed anew in one transaction."""

_PASSES = 5

_PAUSE_SECONDS = 0.25
"""Between passes: whoever has a row in its hands lets go of it within milliseconds, mostly."""

_BEFORE_ALL = UUID(int=0)

PASSING = frozenset({"consents that wait", "trips to Google"})
"""Kinds that are not sealed anew: they are over within the hour."""


@dataclass(slots=True)
class Tally:
    """How far it is."""

    resealed: int = 0
    unopened: int = 0
    """Tokens whose key is not configured, or that were altered or moved."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a portion; the rest of it was in somebody's hands, or has changed."""

    resealed: int
    unopened: int


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

        A hundred at a time, for which nobody who serves waits for longer than some milliseconds,
        and which wait for nobody: what is in somebody's hands is tried again in the end, for a
        second or so.
        """
        await self._all(_SQL["grants_to_reseal"], self._grants, lambda row: (row["id"],))
        await self._all(
            _SQL["access_tokens_to_reseal"],
            self._access_tokens,
            lambda row: (row["id"], row["scope_set"]),
            first=(_BEFORE_ALL, ""),
        )
        await self._all(_SQL["revocations_to_reseal"], self._revocations, lambda row: (row["id"],))
        # What waits is not sealed anew, but events are to find its token by the first key, too.
        await self._waiting.run()

    async def _all(
        self,
        query: str,
        reseal: Callable[[Sequence[asyncpg.Record]], Awaitable[_Done]],
        place: Callable[[asyncpg.Record], tuple[object, ...]],
        *,
        first: tuple[object, ...] = (_BEFORE_ALL,),
    ) -> None:
        for number in range(_PASSES):
            if number:
                await asyncio.sleep(_PAUSE_SECONDS)
            beyond, left, unopened = first, 0, 0
            while rows := await self._portion(query, beyond):
                beyond = place(rows[-1])
                done = await _tried_twice(reseal, rows)
                self.tally.resealed += done.resealed
                unopened += done.unopened
                left += len(rows) - done.resealed - done.unopened
            if not left:
                break
        self.tally.unopened += unopened

    async def _portion(self, query: str, beyond: Sequence[object]) -> list[asyncpg.Record]:
        return await self._database.fetch(query, self._key_id, *beyond, _PORTION)

    async def _grants(self, rows: Sequence[asyncpg.Record]) -> _Done:
        opened: list[tuple[UUID, bytes, bytes]] = []
        lookups: dict[UUID, Lookups] = {}
        unopened = 0
        for row in rows:
            grant, sealed = grant_from(row), refresh_token_from(row)
            assert sealed is not None  # noqa: S101  (it has a key)
            try:
                token = self._sealer.open_refresh_token(grant, sealed)
            except UnsealingError:
                unopened += 1
                continue
            new = self._sealer.seal_refresh_token(grant, token)
            opened.append((grant.id, sealed.ciphertext, new.ciphertext))
            lookups[grant.id] = self._lookups.of(token)
        async with self._database.transaction() as connection:
            changed = await connection.fetch(
                _SQL["reseal_grants"], *_columns(opened, 3), self._key_id
            )
            # The table takes them for other tokens, and has forgotten how events may name them.
            known = [(UUID(bytes=row["id"].bytes), lookups[row["id"]]) for row in changed]
            await connection.execute(
                _SQL["put_many_lookups"],
                [grant_id for grant_id, _ in known],
                self._lookups.key_id,
                [values.prefix for _, values in known],
                [values.digest for _, values in known],
            )
        return _Done(len(changed), unopened)

    async def _access_tokens(self, rows: Sequence[asyncpg.Record]) -> _Done:
        opened: list[tuple[UUID, str, bytes, bytes]] = []
        unopened = 0
        for row in rows:
            grant, held_under = grant_from(row), row["scope_set"]
            held = SealedAccessToken(
                Sealed(row["access_token_key_id"], row["sealed_access_token"]),
                tuple(row["token_scopes"]),
                row["obtained_at"],
                row["expires_at"],
            )
            try:
                token = self._sealer.open_access_token(grant, held_under, held)
            except UnsealingError:
                unopened += 1
                continue
            new = self._sealer.seal_access_token(grant, held_under, token)
            opened.append((grant.id, held_under, held.sealed.ciphertext, new.ciphertext))
        changed = await self._database.fetch(
            _SQL["reseal_access_tokens"], *_columns(opened, 4), self._key_id
        )
        return _Done(len(changed), unopened)

    async def _revocations(self, rows: Sequence[asyncpg.Record]) -> _Done:
        """One at a time: there are few."""
        resealed = unopened = 0
        for row in rows:
            try:
                resealed += await self._revocation(row)
            except UnsealingError:
                unopened += 1
        return _Done(resealed, unopened)

    async def _revocation(self, row: asyncpg.Record) -> bool:
        revocation_id, google_sub = UUID(bytes=row["id"].bytes), row["google_sub"]
        sealed = Sealed(row["token_key_id"], row["sealed_token"])
        token = self._sealer.open_revocation(revocation_id, google_sub, sealed)
        new = self._sealer.seal_revocation(revocation_id, google_sub, token)
        done = await self._database.execute(
            _SQL["reseal_revocation"], revocation_id, sealed.ciphertext, new.ciphertext, new.key_id
        )
        return done == "UPDATE 1"


async def _tried_twice(
    reseal: Callable[[Sequence[asyncpg.Record]], Awaitable[_Done]], rows: Sequence[asyncpg.Record]
) -> _Done:
    """Once more if it was the one to give way in a deadlock, or lost its connection.

    What was done all the same is not done again: those rows count as changed meanwhile.
    """
    try:
        return await reseal(rows)
    except StorageUnavailable:
        return await reseal(rows)


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[list[object]]:
    """The same, each column by itself; so many also where there is no row."""
    return [[row[number] for row in rows] for number in range(count)]
