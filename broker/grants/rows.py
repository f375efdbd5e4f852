"""Converts table rows to the model, and seals or opens each token for its own row and column."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class SealedAccessToken:
    """An access token as the table stores it."""

    sealed: Sealed
    scopes: tuple[str, ...]
    obtained_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A live grant with its sealed tokens, read at one time."""

    grant: Grant
    sealed_refresh_token: Sealed | None
    sealed_access_tokens: Mapping[str, SealedAccessToken]
    """The unexpired tokens by scope set."""


def grant_from(row: asyncpg.Record) -> Grant:
    """Return the grant of a row of `grants`."""
    return Grant(
        id=UUID(bytes=row["id"].bytes),
        user_id=row["user_id"],
        google_sub=row["google_sub"],
        email=row["email"],
        client_id=row["client_id"],
        scopes=tuple(row["scopes"]),
        status=GrantStatus(row["status"]),
        reason=row["reason"],
        is_default=row["is_default"],
        version=row["version"],
        connected_at=row["connected_at"],
        updated_at=row["updated_at"],
        last_used_at=row["last_used_at"],
        last_used_by=row["last_used_by"],
        refresh_token_version=row["refresh_token_version"],
        consented_at=row["consented_at"],
    )


def refresh_token_from(row: asyncpg.Record) -> Sealed | None:
    """Return the sealed refresh token of a row of `grants`."""
    if row["sealed_refresh_token"] is None:
        return None
    return Sealed(row["refresh_token_key_id"], row["sealed_refresh_token"])


def access_token_from(row: asyncpg.Record) -> SealedAccessToken:
    """Return the access token of a row that joins `grants` with `access_tokens`."""
    return SealedAccessToken(
        Sealed(row["access_token_key_id"], row["sealed_access_token"]),
        tuple(row["token_scopes"]),
        row["obtained_at"],
        row["expires_at"],
    )


def stored_grants_from(rows: Sequence[asyncpg.Record]) -> list[StoredGrant]:
    """Return the grants, the oldest first, of rows that repeat a grant for each of its tokens."""
    found: dict[UUID, tuple[StoredGrant, dict[str, SealedAccessToken]]] = {}
    for row in rows:
        row_id = row["id"]
        if row_id not in found:
            tokens: dict[str, SealedAccessToken] = {}
            found[row_id] = (StoredGrant(grant_from(row), refresh_token_from(row), tokens), tokens)
        scope_set = row["scope_set"]
        if scope_set is not None:
            found[row_id][1][scope_set] = access_token_from(row)
    return sorted((stored for stored, _ in found.values()), key=_age)


def _age(stored: StoredGrant) -> tuple[datetime, UUID]:
    return stored.grant.connected_at, stored.grant.id


def split_by_grant(rows: Sequence[asyncpg.Record], size: int) -> Iterator[Sequence[asyncpg.Record]]:
    """Yield portions of about `size` rows; the rows of one grant, which are neighbours, stay
    together.
    """
    start = 0
    while start < len(rows):
        end = start + size
        while end < len(rows) and rows[end]["id"] == rows[end - 1]["id"]:
            end += 1
        yield rows[start:end]
        start = end


class GrantSealer:
    """Seals each token for the row and column where it is stored.

    The user and the account are part of the associated data: a row whose `user_id` was altered does
    not open.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal_refresh_token(self, grant: Grant, token: Secret) -> Sealed:
        return self._sealer.seal(token, place=_refresh_token_place(grant))

    def open_refresh_token(self, grant: Grant, sealed: Sealed) -> Secret:
        """Raises `UnsealingError`."""
        return self._sealer.open(sealed, place=_refresh_token_place(grant))

    def has_refresh_token(self, row: asyncpg.Record | None, token: Secret | None) -> bool:
        """True if a row of `grants` has exactly this refresh token."""
        if row is None or (sealed := refresh_token_from(row)) is None:
            return False
        try:
            return self.open_refresh_token(grant_from(row), sealed) == token
        except UnsealingError:
            return False

    def seal_access_token(self, grant: Grant, scope_set: str, token: AccessToken) -> Sealed:
        return self._sealer.seal(token.value, place=_access_token_place(grant, scope_set))

    def open_access_token(
        self, grant: Grant, scope_set: str, token: SealedAccessToken
    ) -> AccessToken:
        """Raises `UnsealingError`."""
        value = self._sealer.open(token.sealed, place=_access_token_place(grant, scope_set))
        return AccessToken(value, token.scopes, token.obtained_at, token.expires_at)

    def seal_revocation(self, revocation_id: UUID, google_sub: str, token: Secret) -> Sealed:
        return self._sealer.seal(token, place=_revocation_place(revocation_id, google_sub))

    def open_revocation(self, revocation_id: UUID, google_sub: str, sealed: Sealed) -> Secret:
        """Raises `UnsealingError`."""
        return self._sealer.open(sealed, place=_revocation_place(revocation_id, google_sub))


def _refresh_token_place(grant: Grant) -> tuple[str, ...]:
    return ("grants", "refresh_token", str(grant.id), grant.user_id, grant.google_sub)


def _access_token_place(grant: Grant, scope_set: str) -> tuple[str, ...]:
    row = (str(grant.id), grant.user_id, grant.google_sub, scope_set)
    return ("access_tokens", "access_token", *row)


def _revocation_place(revocation_id: UUID, google_sub: str) -> tuple[str, ...]:
    return ("pending_revocations", "token", str(revocation_id), google_sub)
