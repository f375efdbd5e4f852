"""Writes a grant and its tokens, as part of the caller's transaction."""

from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from broker.clock import Clock
from broker.crypto.sealing import Sealed, Sealer
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.fingerprints import TokenFingerprints, put_fingerprints
from broker.grants.model import (
    AccessToken,
    Consent,
    Grant,
    GrantStatus,
    NoRefreshTokenError,
    RevocationUnderWayError,
    to_scope_set,
)
from broker.grants.revocation_outbox import RevocationOutbox
from broker.grants.rows import GrantSealer, grant_from, refresh_token_from
from broker.secret import Secret

_SQL = load_queries("broker.grants")


class GrantWriter:
    """Each method is part of the caller's transaction."""

    def __init__(
        self,
        sealer: Sealer,
        clock: Clock,
        outbox: RevocationOutbox,
        *,
        keep_access_tokens: bool,
        fingerprints: TokenFingerprints | None,
    ) -> None:
        """Without `fingerprints`, those of new refresh tokens are left to the backfill."""
        self._sealer = GrantSealer(sealer)
        self._clock = clock
        self._outbox = outbox
        self._keep_access_tokens = keep_access_tokens
        self._fingerprints = fingerprints

    async def put_consent(self, connection: Connection, consent: Consent) -> Grant:
        """Create the grant, or continue the one that this user has for this account.

        The caller has acquired the locks of user and account (`Database.exclusively`). Raises
        `NoRefreshTokenError` and, before any change, `RevocationUnderWayError`.
        """
        await connection.execute(_SQL["lock_user"], consent.user_id)
        await connection.execute(_SQL["lock_account"], consent.google_sub)
        if await self._outbox.may_have_revoked(
            connection, consent.google_sub, consent.exchanged_after
        ):
            raise RevocationUnderWayError
        row = await connection.fetchrow(
            _SQL["lock_user_grant"], consent.user_id, consent.google_sub
        )
        before = grant_from(row) if row is not None else None
        consent = consent.with_scopes_by(before)
        grant = consented_grant(consent, before, self._clock.now())
        sealed = self._new_or_kept_refresh_token(
            consent, grant, before, refresh_token_from(row) if row is not None else None
        )
        grant = await self._upsert(connection, grant, before, sealed)
        await self._put_fingerprints(connection, grant, consent.refresh_token)
        if consent.refresh_token is not None and row is not None and row["sealed_refresh_token"]:
            await connection.execute(_SQL["put_given_up_token"], grant.google_sub, grant.updated_at)
        await connection.execute(_SQL["delete_access_tokens"], grant.id)
        await self._outbox.cancel(connection, grant.google_sub, at=grant.updated_at)
        if consent.access_token is not None:
            await self.put_access_token(
                connection, grant, to_scope_set(consent.scopes), consent.access_token
            )
        return grant

    def _new_or_kept_refresh_token(
        self, consent: Consent, grant: Grant, before: Grant | None, stored: Sealed | None
    ) -> Sealed:
        if consent.refresh_token is not None:
            return self._sealer.seal_refresh_token(grant, consent.refresh_token)
        if stored is None or not consent.can_keep_token_of(before):
            raise NoRefreshTokenError
        return stored

    async def _upsert(
        self, connection: Connection, grant: Grant, before: Grant | None, sealed: Sealed
    ) -> Grant:
        has_other = await connection.fetchval(
            _SQL["has_other_grant"], grant.user_id, grant.google_sub
        )
        was_default = before is not None and before.is_default
        row = await connection.fetchrow(
            _SQL["upsert_grant"],
            grant.id,
            grant.user_id,
            grant.google_sub,
            grant.email,
            grant.client_id,
            list(grant.scopes),
            was_default or not has_other,
            sealed.ciphertext,
            sealed.key_id,
            grant.updated_at,
            grant.consented_at,
        )
        assert row is not None  # noqa: S101  (the statement always returns its row)
        return grant_from(row)

    async def replace_refresh_token(
        self, connection: Connection, grant: Grant, refresh_token: Secret
    ) -> Grant:
        """Store a rotated refresh token of a grant that was found current."""
        sealed = self._sealer.seal_refresh_token(grant, refresh_token)
        version = await connection.fetchval(
            _SQL["replace_refresh_token"],
            grant.id,
            sealed.ciphertext,
            sealed.key_id,
            self._clock.now(),
        )
        await self._put_fingerprints(connection, grant, refresh_token)
        return replace(grant, refresh_token_version=version)

    async def _put_fingerprints(
        self, connection: Connection, grant: Grant, refresh_token: Secret | None
    ) -> None:
        """Those of a token that is kept do not change."""
        if self._fingerprints is not None and refresh_token is not None:
            made = self._fingerprints.compute(refresh_token)
            await put_fingerprints(connection, grant.id, made)

    async def put_access_token(
        self, connection: Connection, grant: Grant, scope_set: str, token: AccessToken
    ) -> None:
        """Store an access token, if access tokens are stored at all."""
        if not self._keep_access_tokens:
            return
        sealed = self._sealer.seal_access_token(grant, scope_set, token)
        await connection.execute(
            _SQL["upsert_access_token"],
            grant.id,
            grant.version,
            scope_set,
            list(token.scopes),
            sealed.ciphertext,
            sealed.key_id,
            token.obtained_at,
            token.expires_at,
        )


def consented_grant(consent: Consent, before: Grant | None, now: datetime) -> Grant:
    """Return the grant that a consent makes; the table decides its version and default."""
    return Grant(
        id=before.id if before else uuid4(),
        user_id=consent.user_id,
        google_sub=consent.google_sub,
        email=consent.email,
        client_id=consent.client_id,
        scopes=consent.scopes,
        status=GrantStatus.ACTIVE,
        reason=None,
        is_default=False,
        version=1,
        connected_at=now,
        updated_at=now,
        last_used_at=None,
        consented_at=consent.given_at or now,
    )
