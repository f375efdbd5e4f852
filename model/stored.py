"""The contents of the tables, with the tokens opened by the product's own code."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from broker.crypto.sealing import Sealed, Sealer, local_sealing_keys
from broker.grants.pending_consents.model import PendingSealer, pending_consent_from
from broker.grants.rows import GrantSealer, SealedAccessToken, grant_from, refresh_token_from
from broker.scopes import IDENTITY_SCOPES
from broker.secret import Secret
from model.states import ACTIVE, DEAD, HELD_BACK, REVOKED

_GRANTS = "SELECT * FROM grants ORDER BY user_id, google_sub"
_CONSENTS = "SELECT * FROM pending_consents WHERE expires_at > now() ORDER BY link_id"
_ACCESS_TOKENS = """
    SELECT g.*, a.scope_set, a.scopes AS token_scopes, a.sealed_access_token, a.access_token_key_id,
           a.obtained_at, a.expires_at
    FROM access_tokens a JOIN grants g ON g.id = a.grant_id WHERE a.expires_at > now()
"""


@dataclass(frozen=True, slots=True)
class StoredGrant:
    user: str
    sub: str
    status: str
    """The model's key of the row."""
    scopes: frozenset[str]
    """The scopes, without the identity scopes."""
    refresh_token: str | None
    is_default: bool


@dataclass(frozen=True, slots=True)
class StoredConsent:
    link_id: str
    sub: str
    scopes: frozenset[str]
    refresh_token: str | None


@dataclass(frozen=True, slots=True)
class StoredAccessToken:
    user: str
    sub: str
    scopes: frozenset[str]
    value: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Read everything in one transaction."""

    grants: Sequence[StoredGrant]
    consents: Sequence[StoredConsent]
    access_tokens: Sequence[StoredAccessToken]


def read_stored(url: str, secret_keys: Sequence[str]) -> Stored:
    """Return the token. Raises `UnsealingError` if it does not open."""
    return asyncio.run(_read(url, [Secret(key) for key in secret_keys]))


async def _read(url: str, secret_keys: Sequence[Secret]) -> Stored:
    sealer = Sealer(local_sealing_keys(secret_keys))
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return Stored(
                [_grant(row, GrantSealer(sealer)) for row in await connection.fetch(_GRANTS)],
                [_consent(row, PendingSealer(sealer)) for row in await connection.fetch(_CONSENTS)],
                [
                    _access_token(row, GrantSealer(sealer))
                    for row in await connection.fetch(_ACCESS_TOKENS)
                ],
            )
    finally:
        await connection.close()


def _grant(row: asyncpg.Record, sealer: GrantSealer) -> StoredGrant:
    grant, sealed = grant_from(row), refresh_token_from(row)
    status = {
        "active": ACTIVE,
        "revoked": REVOKED,
        "reauthorization_required": HELD_BACK if grant.reason == "account_disabled" else DEAD,
    }[grant.status]
    token = None if sealed is None else sealer.open_refresh_token(grant, sealed).reveal()
    scopes = frozenset(grant.scopes) - IDENTITY_SCOPES
    return StoredGrant(grant.user_id, grant.google_sub, status, scopes, token, grant.is_default)


def _consent(row: asyncpg.Record, sealer: PendingSealer) -> StoredConsent:
    consent, token = pending_consent_from(row), sealer.open_refresh_token(row)
    sealer.open_access_token(row)
    return StoredConsent(
        str(consent.link_id),
        consent.google_sub,
        frozenset(consent.scopes) - IDENTITY_SCOPES,
        None if token is None else token.reveal(),
    )


def _access_token(row: asyncpg.Record, sealer: GrantSealer) -> StoredAccessToken:
    grant = grant_from(row)
    held = SealedAccessToken(
        Sealed(row["access_token_key_id"], row["sealed_access_token"]),
        tuple(row["token_scopes"]),
        row["obtained_at"],
        row["expires_at"],
    )
    token = sealer.open_access_token(grant, row["scope_set"], held)
    scopes = frozenset(token.scopes) - IDENTITY_SCOPES
    return StoredAccessToken(grant.user_id, grant.google_sub, scopes, token.value.reveal())
