"""Fills the grants table without consents, with tokens that are sealed or only look sealed."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.grants.model import AccessToken, Grant, GrantStatus, to_scope_set
from broker.grants.rows import GrantSealer
from broker.secret import Secret

CLIENT_ID = "bench.apps.googleusercontent.com"
CALENDAR = "https://www.googleapis.com/auth/calendar.readonly"

_GRANT_COLUMNS = (
    "id", "user_id", "google_sub", "email", "client_id", "scopes", "status", "is_default",
    "version", "sealed_refresh_token", "refresh_token_key_id", "connected_at", "updated_at",
)  # fmt: skip
_TOKEN_COLUMNS = (
    "grant_id", "scope_set", "scopes", "sealed_access_token", "access_token_key_id",
    "obtained_at", "expires_at",
)  # fmt: skip

# As long as real sealed tokens; the user ids sort among the real ones.
_LOOKALIKES = """
WITH new AS (
    INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, is_default,
                        sealed_refresh_token, refresh_token_key_id, connected_at, updated_at)
    SELECT gen_random_uuid(), 'user-' || md5(random()::text || n), md5(random()::text || n),
           md5(n::text) || '@example.com', $1, ARRAY[$2], 'active', true,
           decode(repeat(md5(n::text), 10), 'hex'), 'local:0000000000000000', now(), now()
    FROM generate_series(1, $3::int) AS n
    RETURNING id
)
INSERT INTO access_tokens (grant_id, scope_set, scopes, sealed_access_token, access_token_key_id,
                           obtained_at, expires_at)
SELECT id, $2, ARRAY[$2], decode(repeat(md5(id::text), 16), 'hex'), 'local:0000000000000000',
       now(), now() + interval '1 hour'
FROM new
"""


def sealer_of(secret_key: str) -> Sealer:
    """Return the sealer of a broker with this `SECRET_KEY`."""
    return Sealer(local_sealing_keys([Secret(secret_key)]))


def new_user_ids(count: int) -> list[str]:
    """Return user ids that are spread over the whole index."""
    return [f"user-{secrets.token_hex(16)}" for _ in range(count)]


async def fill(url: str, sealer: Sealer, user_ids: Sequence[str]) -> None:
    """Insert a grant for each user, with an access token that lives for another hour."""
    sealing = GrantSealer(sealer)
    now = datetime.now(UTC)
    grants, tokens = [], []
    for user_id in user_ids:
        grant = sample_grant(user_id, now)
        refresh = sealing.seal_refresh_token(grant, Secret("1//" + secrets.token_urlsafe(96)))
        grants.append(
            (
                grant.id, user_id, grant.google_sub, grant.email, CLIENT_ID, [CALENDAR], "active",
                True, 1, refresh.ciphertext, refresh.key_id, now, now,
            )
        )  # fmt: skip
        value = Secret("ya29." + secrets.token_urlsafe(160))
        token = AccessToken(value, (CALENDAR,), now, now + timedelta(hours=1))
        sealed = sealing.seal_access_token(grant, to_scope_set(token.scopes), token)
        tokens.append(
            (
                grant.id, to_scope_set(token.scopes), [CALENDAR], sealed.ciphertext, sealed.key_id,
                token.obtained_at, token.expires_at,
            )
        )  # fmt: skip
    connection = await _quiet_connection(url)
    try:
        await connection.copy_records_to_table("grants", records=grants, columns=_GRANT_COLUMNS)
        await connection.copy_records_to_table(
            "access_tokens", records=tokens, columns=_TOKEN_COLUMNS
        )
    finally:
        await connection.close()


async def fill_with_lookalikes(url: str, count: int) -> None:
    """Insert grants that no key opens, to make the table large."""
    connection = await _quiet_connection(url)
    try:
        await connection.execute(_LOOKALIKES, CLIENT_ID, CALENDAR, count)
    finally:
        await connection.close()


async def settle(url: str) -> None:
    """Give the table statistics and write its pages, as after a year of growth."""
    connection = await _quiet_connection(url)
    try:
        await connection.execute("VACUUM ANALYZE grants, access_tokens")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _quiet_connection(url: str) -> asyncpg.Connection:
    """Connect without triggers: a million notifications would be sent in one transaction."""
    connection = await asyncpg.connect(url, command_timeout=600)
    await connection.execute("SET session_replication_role = replica")
    return connection


def sample_grant(
    user_id: str, now: datetime, *, sub: str | None = None, scope: str = CALENDAR
) -> Grant:
    """Return a grant as it is after a consent to one scope."""
    return Grant(
        id=uuid4(),
        user_id=user_id,
        google_sub=sub or str(secrets.randbits(64)),
        email=f"{user_id}@example.com",
        client_id=CLIENT_ID,
        scopes=(scope,),
        status=GrantStatus.ACTIVE,
        reason=None,
        is_default=True,
        version=1,
        connected_at=now,
        updated_at=now,
        last_used_at=None,
    )
