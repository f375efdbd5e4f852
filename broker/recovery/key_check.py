"""Checks that keys open what is stored, on one row of each key and kind; drops the secrets."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer, UnsealingError, local_sealing_keys
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants.rows import GrantSealer, SealedAccessToken, grant_from, refresh_token_from
from broker.secret import Secret

_SQL = load_queries("broker.recovery")


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """The secrets of one kind that one key sealed, and the result of opening one of them."""

    kind: str
    key: str
    sealed: int
    problem: str | None
    lasts: bool
    """False for access tokens, which are fetched again; others that do not open are lost."""

    def __str__(self) -> str:
        which = f"{self.sealed} {self.kind} of {self.key}"
        return f"{which}: {self.problem}" if self.problem else f"{which}: one was opened"


async def check_keys(database: Database, keys: Sequence[Secret]) -> list[KeyCheck]:
    """Open one secret of each stored kind and key. Raises `StorageUnavailable`."""
    sealer = GrantSealer(Sealer(local_sealing_keys(keys)))
    names = {key.id: f"key {n}" for n, key in enumerate(local_sealing_keys(keys), start=1)}

    def check(row: asyncpg.Record, kind: str, key_id: str, *, lasts: bool = True) -> KeyCheck:
        problem = _problem(sealer, kind, row)
        known = names.get(key_id)
        if known is None:
            known, problem = key_id, "the key is missing"
        return KeyCheck(kind, known, row["sealed"], problem, lasts)

    return [
        *(
            check(row, "refresh tokens", row["refresh_token_key_id"])
            for row in await database.fetch(_SQL["refresh_tokens_by_key"])
        ),
        *(
            check(row, "revocations", row["token_key_id"])
            for row in await database.fetch(_SQL["revocations_by_key"])
        ),
        *(
            check(row, "access tokens", row["access_token_key_id"], lasts=False)
            for row in await database.fetch(_SQL["access_tokens_by_key"])
        ),
    ]


def _problem(sealer: GrantSealer, kind: str, row: asyncpg.Record) -> str | None:
    try:
        _open(sealer, kind, row)
    except UnsealingError as error:
        return f"does not open: {error}"
    return None


def _open(sealer: GrantSealer, kind: str, row: asyncpg.Record) -> None:
    """Raises `UnsealingError`."""
    if kind == "revocations":
        sealed = Sealed(row["token_key_id"], row["sealed_token"])
        sealer.open_revocation(UUID(bytes=row["id"].bytes), row["google_sub"], sealed)
        return
    grant, refresh_token = grant_from(row), refresh_token_from(row)
    if kind == "refresh tokens":
        assert refresh_token is not None  # noqa: S101  (it has a key)
        sealer.open_refresh_token(grant, refresh_token)
        return
    sealed_token = SealedAccessToken(
        Sealed(row["access_token_key_id"], row["sealed_access_token"]),
        tuple(row["token_scopes"]),
        row["obtained_at"],
        row["expires_at"],
    )
    sealer.open_access_token(grant, row["scope_set"], sealed_token)
