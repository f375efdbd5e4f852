"""Reseals stored tokens with the first key while brokers serve, so that older keys can be removed.

A token that changed since it was read is left as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.database.database import Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.grants.fingerprints import (
    Fingerprints,
    PendingFingerprintBackfill,
    TokenFingerprints,
    put_many_fingerprints,
)
from broker.grants.rows import GrantSealer, access_token_from, grant_from, refresh_token_from

_SQL = load_queries("broker.grants", "resealing.sql")

_PORTION = 100
"""Rows per transaction."""

_PASSES = 5

_PASS_INTERVAL_SECONDS = 0.25
"""Most row locks last a few milliseconds."""

_FIRST_ID = UUID(int=0)

SHORT_LIVED_KINDS = frozenset({"pending consents", "authorization requests"})
"""Kinds that are not resealed: they expire within the hour."""


@dataclass(slots=True)
class ResealingProgress:
    """The number of tokens processed so far."""

    resealed: int = 0
    unopened: int = 0
    """Tokens whose key is not configured, or that were altered or moved."""


@dataclass(frozen=True, slots=True)
class _PortionResult:
    """The other rows of the portion were locked or have changed."""

    resealed: int
    unopened: int


class Resealer:
    """All methods raise `StorageUnavailable` if PostgreSQL is unavailable."""

    def __init__(self, database: Database, sealer: Sealer, fingerprints: TokenFingerprints) -> None:
        self._database = database
        self._key_id = sealer.current_key_id
        self._sealer = GrantSealer(sealer)
        self._fingerprints = fingerprints
        self._pending_backfill = PendingFingerprintBackfill(database, sealer, fingerprints)
        self.progress = ResealingProgress()

    async def count_by_key(self) -> Mapping[tuple[str, str], int]:
        """Return the number of stored secrets by kind and key id."""
        rows = await self._database.fetch(_SQL["count_by_key"])
        return {(row["kind"], row["key_id"]): row["sealed"] for row in rows}

    async def run(self) -> None:
        """Reseal what is sealed with another key than the first. Safe to repeat and to run twice.

        Each transaction reseals 100 rows, and delays requests by a few milliseconds at most. It
        waits for no lock: locked rows are tried again at the end, for about a second.
        """
        await self._all(_SQL["find_grants_to_reseal"], self._grants, lambda row: (row["id"],))
        await self._all(
            _SQL["find_access_tokens_to_reseal"],
            self._access_tokens,
            lambda row: (row["id"], row["scope_set"]),
            first=(_FIRST_ID, ""),
        )
        await self._all(
            _SQL["find_revocations_to_reseal"], self._revocations, lambda row: (row["id"],)
        )
        # Pending consents are not resealed, but events find their tokens by the first key too.
        await self._pending_backfill.run()

    async def _all(
        self,
        query: str,
        reseal: Callable[[Sequence[asyncpg.Record]], Awaitable[_PortionResult]],
        position: Callable[[asyncpg.Record], tuple[object, ...]],
        *,
        first: tuple[object, ...] = (_FIRST_ID,),
    ) -> None:
        for number in range(_PASSES):
            if number:
                await asyncio.sleep(_PASS_INTERVAL_SECONDS)
            after, left, unopened = first, 0, 0
            while rows := await self._portion(query, after):
                after = position(rows[-1])
                done = await _with_one_retry(reseal, rows)
                self.progress.resealed += done.resealed
                unopened += done.unopened
                left += len(rows) - done.resealed - done.unopened
            if not left:
                break
        self.progress.unopened += unopened

    async def _portion(self, query: str, after: Sequence[object]) -> list[asyncpg.Record]:
        return await self._database.fetch(query, self._key_id, *after, _PORTION)

    async def _grants(self, rows: Sequence[asyncpg.Record]) -> _PortionResult:
        opened: list[tuple[UUID, bytes, bytes]] = []
        made: dict[UUID, Fingerprints] = {}
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
            made[grant.id] = self._fingerprints.compute(token)
        async with self._database.transaction() as connection:
            changed = await connection.fetch(
                _SQL["reseal_grants"], *_columns(opened, 3), self._key_id
            )
            # A trigger has deleted the fingerprints: to it the ciphertexts are other tokens.
            resealed = [UUID(bytes=row["id"].bytes) for row in changed]
            await put_many_fingerprints(
                connection,
                self._fingerprints.key_id,
                {grant_id: made[grant_id] for grant_id in resealed},
            )
        return _PortionResult(len(changed), unopened)

    async def _access_tokens(self, rows: Sequence[asyncpg.Record]) -> _PortionResult:
        opened: list[tuple[UUID, str, bytes, bytes]] = []
        unopened = 0
        for row in rows:
            grant, scope_set, stored = grant_from(row), row["scope_set"], access_token_from(row)
            try:
                token = self._sealer.open_access_token(grant, scope_set, stored)
            except UnsealingError:
                unopened += 1
                continue
            new = self._sealer.seal_access_token(grant, scope_set, token)
            opened.append((grant.id, scope_set, stored.sealed.ciphertext, new.ciphertext))
        changed = await self._database.fetch(
            _SQL["reseal_access_tokens"], *_columns(opened, 4), self._key_id
        )
        return _PortionResult(len(changed), unopened)

    async def _revocations(self, rows: Sequence[asyncpg.Record]) -> _PortionResult:
        """Reseal one at a time: there are few."""
        resealed = unopened = 0
        for row in rows:
            try:
                resealed += await self._revocation(row)
            except UnsealingError:
                unopened += 1
        return _PortionResult(resealed, unopened)

    async def _revocation(self, row: asyncpg.Record) -> bool:
        revocation_id, google_sub = UUID(bytes=row["id"].bytes), row["google_sub"]
        sealed = Sealed(row["token_key_id"], row["sealed_token"])
        token = self._sealer.open_revocation(revocation_id, google_sub, sealed)
        new = self._sealer.seal_revocation(revocation_id, google_sub, token)
        done = await self._database.execute(
            _SQL["reseal_revocation"], revocation_id, sealed.ciphertext, new.ciphertext, new.key_id
        )
        return done == "UPDATE 1"


async def _with_one_retry(
    reseal: Callable[[Sequence[asyncpg.Record]], Awaitable[_PortionResult]],
    rows: Sequence[asyncpg.Record],
) -> _PortionResult:
    """Retry once if the transaction was the victim of a deadlock, or lost its connection.

    Rows that the first try has resealed all the same count as changed, and are not resealed again.
    """
    try:
        return await reseal(rows)
    except StorageUnavailable:
        return await reseal(rows)


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[list[object]]:
    """Transpose rows to `count` columns, also if there is no row."""
    return [[row[number] for row in rows] for number in range(count)]
