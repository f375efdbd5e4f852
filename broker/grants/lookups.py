"""How a refresh token is found by what Google's events say of it, without keeping any of it.

An event names a token by its first 16 characters, or by a hash of a hash. Stored in the clear, the
one would give part of the token away, and the other would prove a guess. So an HMAC of each is
stored, under a key of `SECRET_KEY`'s.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from broker.crypto.keys import derive_key
from broker.crypto.sealing import Sealer, UnsealingError
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants.rows import GrantSealer, grant_from, refresh_token_from
from broker.secret import Secret

_SQL = load_queries("broker.grants")

_PREFIX_LENGTH = 16
_PORTION = 100
_EACH_ROUND = 1000
_BEFORE_ALL = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Lookups:
    """What is stored for one refresh token."""

    key_id: str
    prefix: bytes
    digest: bytes


class TokenLookups:
    """Makes lookup values with the first key, and looks with all."""

    def __init__(self, secret_keys: Sequence[Secret]) -> None:
        self._keys = [derive_key(key, "refresh token lookups") for key in secret_keys]
        self.key_id = derive_key(secret_keys[0], "refresh token lookups key id")[:8].hex()
        """Of the key that is used for what is stored from now on."""

    def of(self, refresh_token: Secret) -> Lookups:
        """What to store."""
        token = refresh_token.reveal()
        key = self._keys[0]
        return Lookups(
            self.key_id,
            _value(key, b"prefix", token[:_PREFIX_LENGTH].encode()),
            _value(key, b"digest", double_digest(token)),
        )

    def of_prefix(self, prefix: str) -> list[bytes]:
        """What may be stored for a token that begins so, under each key."""
        return [_value(key, b"prefix", prefix.encode()) for key in self._keys]

    def of_digest(self, digest: bytes) -> list[bytes]:
        """What may be stored for a token with this `double_digest`, under each key."""
        return [_value(key, b"digest", digest) for key in self._keys]


def double_digest(token: str) -> bytes:
    """SHA-512 of SHA-512: what Google sends in base64 as `hash_base64_sha512_sha512`."""
    return hashlib.sha512(hashlib.sha512(token.encode()).digest()).digest()


def _value(key: bytes, kind: bytes, what: bytes) -> bytes:
    return hmac.digest(key, kind + b"\0" + what, hashlib.sha256)


class LookupFill:
    """Makes the values that are missing: for grants of older releases, and after a key's rotation.

    A refresh token that does not open is passed over; the next time around it is tried again.
    """

    def __init__(self, database: Database, sealer: Sealer, lookups: TokenLookups) -> None:
        self._database = database
        self._sealer = GrantSealer(sealer)
        self._lookups = lookups
        self._beyond = _BEFORE_ALL

    async def round(self) -> None:
        """Fill some. Raises `StorageUnavailable`."""
        for _ in range(_EACH_ROUND // _PORTION):
            if not await self._fill_portion():
                return
            await asyncio.sleep(0)

    async def _fill_portion(self) -> bool:
        """Whether there may be more."""
        rows = await self._database.fetch(
            _SQL["grants_without_lookups"], self._lookups.key_id, self._beyond, _PORTION
        )
        self._beyond = UUID(bytes=rows[-1]["id"].bytes) if len(rows) == _PORTION else _BEFORE_ALL
        made = []
        for row in rows:
            sealed = refresh_token_from(row)
            try:
                if sealed is None:
                    continue
                token = self._sealer.open_refresh_token(grant_from(row), sealed)
            except UnsealingError:
                continue
            lookups = self._lookups.of(token)
            made.append(
                (row["id"], row["generation"], lookups.key_id, lookups.prefix, lookups.digest)
            )
        if made:
            async with self._database.transaction() as connection:
                await connection.executemany(_SQL["fill_lookups"], made)
        return len(rows) == _PORTION
