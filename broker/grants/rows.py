"""Between table rows and the model: what is sealed is opened or sealed here, for its own place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class SealedAccessToken:
    """A token as the table holds it."""

    sealed: Sealed
    scopes: tuple[str, ...]
    obtained_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A live grant with its sealed tokens, as they were at one moment."""

    grant: Grant
    sealed_refresh_token: Sealed | None
    sealed_access_tokens: Mapping[str, SealedAccessToken]
    """By scope set; expired ones are left out."""


def grant_from(row: asyncpg.Record) -> Grant:
    """The grant of a row of `grants`."""
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


def stored_grants_from(rows: Sequence[asyncpg.Record]) -> list[StoredGrant]:
    """Grants, the oldest first, from the rows of `find_for_user`, which repeat one per token."""
    found: dict[UUID, tuple[StoredGrant, dict[str, SealedAccessToken]]] = {}
    for row in rows:
        row_id = row["id"]
        if row_id not in found:
            held: dict[str, SealedAccessToken] = {}
            found[row_id] = (StoredGrant(grant_from(row), refresh_token_from(row), held), held)
        held_under = row["scope_set"]
        if held_under is not None:
            found[row_id][1][held_under] = SealedAccessToken(
                Sealed(row["access_token_key_id"], row["sealed_access_token"]),
                tuple(row["token_scopes"]),
                row["obtained_at"],
                row["expires_at"],
            )
    return sorted((stored for stored, _ in found.values()), key=_age)


def _age(stored: StoredGrant) -> tuple[datetime, UUID]:
    return stored.grant.connected_at, stored.grant.id


def portions_of(rows: Sequence[asyncpg.Record], size: int) -> Iterator[Sequence[asyncpg.Record]]:
    """The rows some at a time; those of one grant, which are neighbours, stay together."""
    start = 0
    while start < len(rows):
        end = start + size
        while end < len(rows) and rows[end]["id"] == rows[end - 1]["id"]:
            end += 1
        yield rows[start:end]
        start = end


def refresh_token_from(row: asyncpg.Record) -> Sealed | None:
    """The sealed refresh token of a row of `grants`."""
    if row["sealed_refresh_token"] is None:
        return None
    return Sealed(row["refresh_token_key_id"], row["sealed_refresh_token"])


class GrantSealer:
    """Seals each token for the one row and column where it belongs.

    The user and the account are part of the place: a row whose `user_id` was altered does not open.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal_refresh_token(self, grant: Grant, token: Secret) -> Sealed:
        return self._sealer.seal(token, place=_refresh_token_place(grant))

    def open_refresh_token(self, grant: Grant, sealed: Sealed) -> Secret:
        """Raises `UnsealingError`."""
        return self._sealer.open(sealed, place=_refresh_token_place(grant))

    def seal_access_token(self, grant: Grant, scopes: str, token: AccessToken) -> Sealed:
        return self._sealer.seal(token.value, place=_access_token_place(grant, scopes))

    def open_access_token(self, grant: Grant, scopes: str, held: SealedAccessToken) -> AccessToken:
        """Raises `UnsealingError`."""
        value = self._sealer.open(held.sealed, place=_access_token_place(grant, scopes))
        return AccessToken(value, held.scopes, held.obtained_at, held.expires_at)

    def seal_revocation(self, revocation_id: UUID, google_sub: str, token: Secret) -> Sealed:
        return self._sealer.seal(token, place=_revocation_place(revocation_id, google_sub))

    def open_revocation(self, revocation_id: UUID, google_sub: str, sealed: Sealed) -> Secret:
        """Raises `UnsealingError`."""
        return self._sealer.open(sealed, place=_revocation_place(revocation_id, google_sub))


def _refresh_token_place(grant: Grant) -> tuple[str, ...]:
    return ("grants", "refresh_token", str(grant.id), grant.user_id, grant.google_sub)


def _access_token_place(grant: Grant, scopes: str) -> tuple[str, ...]:
    row = (str(grant.id), grant.user_id, grant.google_sub, scopes)
    return ("access_tokens", "access_token", *row)


def _revocation_place(revocation_id: UUID, google_sub: str) -> tuple[str, ...]:
    return ("pending_revocations", "token", str(revocation_id), google_sub)
