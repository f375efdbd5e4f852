"""Changes to the table `pending_consents` that are part of a change to grants, or of a security
event.

Google's newest refresh token can fetch all scopes that its answer named (`include_granted_scopes`),
whichever consent asked for them. So the pending consents of its account get that token.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

import asyncpg

from broker.crypto.sealing import Sealer
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.fingerprints import TokenFingerprints, fingerprint_columns
from broker.grants.model import Grant
from broker.grants.pending_consents.model import PendingConsent, PendingSealer, pending_consent_from
from broker.grants.revocation_outbox import RevocationOutbox
from broker.secret import Secret

_SQL = load_queries("broker.grants.pending_consents")


class PendingConsentTable:
    """Each method is part of the caller's transaction, which has locked user and account."""

    def __init__(
        self, sealer: Sealer, outbox: RevocationOutbox, fingerprints: TokenFingerprints | None
    ) -> None:
        """Without `fingerprints`, those of new refresh tokens are left to the backfill."""
        self._sealer = PendingSealer(sealer)
        self._outbox = outbox
        self._fingerprints = fingerprints

    async def delete_for_user(
        self, connection: Connection, user_id: str, google_sub: str | None
    ) -> Sequence[asyncpg.Record]:
        """Delete the user's pending consents (of one account, or all) and return the rows.

        Call `revoke_at_google` with each row once the grants are revoked.
        """
        return await connection.fetch(_SQL["delete_pending_consents_of_user"], user_id, google_sub)

    async def revoke_at_google(
        self, connection: Connection, row: asyncpg.Record, *, origin: str
    ) -> None:
        """Queue the revocation of a deleted row's token, unless its account is in use.

        A row without a refresh token relied on a live grant, whose own revocation is queued.
        """
        if await self._outbox.is_account_in_use(connection, row["google_sub"]):
            return
        await self._outbox.add_opened(
            connection,
            row["google_sub"],
            partial(self._sealer.open_refresh_token, row),
            origin=origin,
        )

    async def replace_refresh_tokens(
        self,
        connection: Connection,
        token: Secret | None,
        *,
        owner: tuple[str, str, str],
        scopes: Iterable[str],
        now: datetime,
        exchanged_after: datetime | None,
    ) -> bool:
        """Give a new refresh token to the owner's pending consents whose scopes it can fetch.

        `owner` is user, account and client. Returns True if any of them had an older token.
        """
        if token is None:
            return False
        rows = await connection.fetch(
            _SQL["lock_pending_consents_within"], *owner, list(scopes), now
        )
        for row in rows:
            sealed = self._sealer.seal("refresh_token", pending_consent_from(row), token)
            assert sealed is not None  # noqa: S101  (there is a token)
            await connection.execute(
                _SQL["replace_pending_refresh_token"],
                row["link_id"],
                sealed.ciphertext,
                sealed.key_id,
                exchanged_after,
                *fingerprint_columns(self._fingerprints, token),
            )
        return any(row["sealed_refresh_token"] is not None for row in rows)


class AccountPendingConsents:
    """The pending consents of one Google account, of all users: for security events.

    Each method is part of the caller's transaction, which has locked the account. The same for
    grants is `AccountGrants`.
    """

    def __init__(self, fingerprints: TokenFingerprints, table: PendingConsentTable) -> None:
        self._fingerprints = fingerprints
        self._table = table

    async def find_by_account(
        self, connection: Connection, google_sub: str
    ) -> Sequence[PendingConsent]:
        """Return all of the account, locked until the transaction ends."""
        rows = await connection.fetch(_SQL["lock_pending_consents_of_account"], google_sub)
        return [pending_consent_from(row) for row in rows]

    async def find_by_prefix(self, connection: Connection, prefix: str) -> Sequence[PendingConsent]:
        """Return those whose refresh token begins with these 16 characters."""
        values = self._fingerprints.compute_for_prefix(prefix)
        rows = await connection.fetch(_SQL["find_pending_by_token_prefix"], values)
        return [pending_consent_from(row) for row in rows]

    async def find_by_digest(
        self, connection: Connection, digest: bytes
    ) -> Sequence[PendingConsent]:
        """Return those whose refresh token has this `double_digest`."""
        values = self._fingerprints.compute_for_digest(digest)
        rows = await connection.fetch(_SQL["find_pending_by_token_digest"], values)
        return [pending_consent_from(row) for row in rows]

    async def find_by_grant(self, connection: Connection, grant: Grant) -> Sequence[PendingConsent]:
        """Return those that rely on the grant's refresh token, because Google sent no other."""
        rows = await connection.fetch(
            _SQL["find_pending_without_token"], grant.user_id, grant.google_sub
        )
        return [pending_consent_from(row) for row in rows]

    async def delete(
        self, connection: Connection, consents: Iterable[PendingConsent], *, revoke_at_google: bool
    ) -> None:
        """Delete pending consents, which then can't be confirmed.

        With `revoke_at_google` their tokens are revoked there too, unless the account is in use.
        """
        rows = [
            await connection.fetchrow(_SQL["delete_pending_consent"], each.link_id)
            for each in consents
        ]
        # Only once all are deleted: each would count as a use of the account for the others.
        for row in rows:
            if revoke_at_google and row is not None:
                await self._table.revoke_at_google(connection, row, origin="security_event")

    async def require_refresh(self, connection: Connection, pending: PendingConsent) -> bool:
        """Delete the access token: after the confirmation the first request refreshes, and Google
        shows the state. False if there was none.
        """
        done = await connection.execute(_SQL["delete_pending_access_token"], pending.link_id)
        return not done.endswith(" 0")
