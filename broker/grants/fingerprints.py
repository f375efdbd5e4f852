"""Fingerprints: keyed hashes by which a security event finds the refresh token that it names.

Google's events name a token by its first 16 characters or by a double hash. Stored in the clear,
the prefix would reveal part of the token, and the hash would confirm a guess. So an HMAC of each is
stored, with a key derived from `SECRET_KEY`.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.crypto.keys import derive_key
from broker.crypto.sealing import Sealer, UnsealingError
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.grants.pending_consents.model import PendingSealer
from broker.grants.rows import GrantSealer, grant_from, refresh_token_from
from broker.secret import Secret

_SQL = load_queries("broker.grants", "fingerprints.sql")

_PREFIX_LENGTH = 16
_PORTION = 100
_PER_RUN = 1000
_FIRST_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The fingerprints of one refresh token."""

    key_id: str
    prefix: bytes
    digest: bytes


class TokenFingerprints:
    """Computes fingerprints: new ones with the first key, those to search for with every key."""

    def __init__(self, secret_keys: Sequence[Secret]) -> None:
        self._keys = [derive_key(key, "refresh token lookups") for key in secret_keys]
        self.key_id = derive_key(secret_keys[0], "refresh token lookups key id")[:8].hex()
        """The id of the key for new fingerprints."""

    def compute(self, refresh_token: Secret) -> Fingerprints:
        """Return the fingerprints to store for a refresh token."""
        token = refresh_token.reveal()
        key = self._keys[0]
        return Fingerprints(
            self.key_id,
            _fingerprint(key, b"prefix", token[:_PREFIX_LENGTH].encode()),
            _fingerprint(key, b"digest", double_digest(token)),
        )

    def compute_for_prefix(self, prefix: str) -> list[bytes]:
        """Return the prefix fingerprint under each key."""
        return [_fingerprint(key, b"prefix", prefix.encode()) for key in self._keys]

    def compute_for_digest(self, digest: bytes) -> list[bytes]:
        """Return the digest fingerprint of a `double_digest` under each key."""
        return [_fingerprint(key, b"digest", digest) for key in self._keys]


def double_digest(token: str) -> bytes:
    """Return SHA-512 of SHA-512; Google sends it in base64 as `hash_base64_sha512_sha512`."""
    return hashlib.sha512(hashlib.sha512(token.encode()).digest()).digest()


def _fingerprint(key: bytes, kind: bytes, value: bytes) -> bytes:
    return hmac.digest(key, kind + b"\0" + value, hashlib.sha256)


def fingerprint_columns(
    fingerprints: TokenFingerprints | None, token: Secret | None
) -> tuple[str | None, bytes | None, bytes | None]:
    """Return the values of a pending consent's fingerprint columns; NULLs without a token.

    Without `fingerprints` the columns are left to the backfill.
    """
    if token is None or fingerprints is None:
        return None, None, None
    made = fingerprints.compute(token)
    return made.key_id, made.prefix, made.digest


async def put_fingerprints(connection: Connection, grant_id: UUID, made: Fingerprints) -> None:
    """Store the fingerprints of the grant's refresh token, in the caller's transaction."""
    await connection.execute(
        _SQL["put_fingerprints"], grant_id, made.key_id, made.prefix, made.digest
    )


async def put_many_fingerprints(
    connection: Connection, key_id: str, made: Mapping[UUID, Fingerprints]
) -> None:
    """Store the fingerprints of several grants' refresh tokens, all made with one key."""
    await connection.execute(
        _SQL["put_many_fingerprints"],
        list(made),
        key_id,
        [each.prefix for each in made.values()],
        [each.digest for each in made.values()],
    )


class FingerprintBackfill:
    """Computes missing fingerprints of grants: those of older releases, and after a key rotation.

    A refresh token that does not open is skipped, and tried again when the backfill starts over.
    """

    def __init__(self, database: Database, sealer: Sealer, fingerprints: TokenFingerprints) -> None:
        self._database = database
        self._sealer = GrantSealer(sealer)
        self._fingerprints = fingerprints
        self._last_id = _FIRST_ID

    async def run_once(self) -> None:
        """Process the next grants, 1,000 at most. Raises `StorageUnavailable`."""
        for _ in range(_PER_RUN // _PORTION):
            if not await self._fill_portion():
                return
            await asyncio.sleep(0)

    async def _fill_portion(self) -> bool:
        """Return True if there may be more grants."""
        rows = await self._database.fetch(
            _SQL["find_grants_without_fingerprints"],
            self._fingerprints.key_id,
            self._last_id,
            _PORTION,
        )
        self._last_id = UUID(bytes=rows[-1]["id"].bytes) if len(rows) == _PORTION else _FIRST_ID
        made = []
        for row in rows:
            sealed = refresh_token_from(row)
            try:
                if sealed is None:
                    continue
                token = self._sealer.open_refresh_token(grant_from(row), sealed)
            except UnsealingError:
                continue
            values = self._fingerprints.compute(token)
            made.append((row["id"], row["generation"], values.key_id, values.prefix, values.digest))
        if made:
            async with self._database.transaction() as connection:
                await connection.executemany(_SQL["fill_fingerprints"], made)
        return len(rows) == _PORTION


class PendingFingerprintBackfill:
    """Computes missing fingerprints of pending consents, which are few and expire within minutes.

    A refresh token that does not open is skipped: its consent can't be confirmed either.
    """

    def __init__(self, database: Database, sealer: Sealer, fingerprints: TokenFingerprints) -> None:
        self._database = database
        self._sealer = PendingSealer(sealer)
        self._fingerprints = fingerprints

    async def run(self) -> None:
        """Process all pending consents. Raises `StorageUnavailable`."""
        last_id = _FIRST_ID
        while rows := await self._portion(last_id):
            last_id = UUID(bytes=rows[-1]["link_id"].bytes)
            made = [values for row in rows if (values := self._values(row)) is not None]
            async with self._database.transaction() as connection:
                await connection.executemany(_SQL["fill_pending_fingerprints"], made)

    async def _portion(self, last_id: UUID) -> list[asyncpg.Record]:
        return await self._database.fetch(
            _SQL["find_pending_without_fingerprints"], self._fingerprints.key_id, last_id, _PORTION
        )

    def _values(self, row: asyncpg.Record) -> tuple[object, ...] | None:
        try:
            token = self._sealer.open_refresh_token(row)
        except UnsealingError:
            return None
        if token is None:
            return None
        made = self._fingerprints.compute(token)
        sealed = row["sealed_refresh_token"]
        return row["link_id"], made.key_id, made.prefix, made.digest, sealed
