"""The store of grants: every change is one transaction, safe against late writers.

A change that was decided on an older version of the grant is rejected, not merged. Nothing here
calls Google.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import Sealer, UnsealingError
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import account_lock, grant_lock, user_lock
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.grant_reads import GrantReads
from broker.grants.model import (
    AccessToken,
    Consent,
    Grant,
    GrantStatus,
    LastUse,
    RevocationUnderWayError,
)
from broker.grants.pending_consents.model import pending_consent_from
from broker.grants.pending_consents.table import PendingConsentTable
from broker.grants.recent_changes import RecentChanges
from broker.grants.refresh_lease import Lease, is_lease_holder, release_lease
from broker.grants.revocation_outbox import RevocationOutbox
from broker.grants.rows import (
    GrantSealer,
    SealedAccessToken,
    StoredGrant,
    grant_from,
    refresh_token_from,
    split_by_grant,
    stored_grants_from,
)
from broker.grants.writer import GrantWriter
from broker.secret import Secret

_SQL = load_queries("broker.grants")

_ROWS_PER_STEP = 50
"""Rows converted to grants before the event loop runs other tasks."""


class GrantStore:
    """Reads and changes grants. All methods raise `StorageUnavailable` without PostgreSQL."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        *,
        keep_access_tokens: bool,
        read_replica: Database | None = None,
        fingerprints: TokenFingerprints | None = None,
        recent_changes: RecentChanges | None = None,
    ) -> None:
        """`read_replica` is read while the primary does not respond, unless its answer lacks one of
        `recent_changes`. Without `fingerprints`, those of new refresh tokens are left to the
        backfill.
        """
        self._recent_changes = recent_changes or RecentChanges(clock)
        self._reads = GrantReads(database, read_replica, clock, self._recent_changes)
        self._database = database
        self._sealer = GrantSealer(sealer)
        self._outbox = RevocationOutbox(database, sealer, clock)
        self._pending = PendingConsentTable(sealer, self._outbox, fingerprints)
        self._writer = GrantWriter(
            sealer,
            clock,
            self._outbox,
            keep_access_tokens=keep_access_tokens,
            fingerprints=fingerprints,
        )
        self._clock = clock

    # Reading.

    async def find(self, user_id: str) -> Sequence[StoredGrant]:
        """Return the user's grants that are not revoked, the oldest first, in one round trip."""
        return stored_grants_from(await self._reads.read(_SQL["find_for_user"], user_id))

    async def find_many(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[StoredGrant]]:
        """Return the live grants of many users, in one round trip.

        A user whose grants are unknown now is missing; a user without grants has an empty sequence.
        """
        rows, unknown = await self._reads.read_many(_SQL["find_for_users"], user_ids)
        found: dict[str, list[StoredGrant]] = {
            user_id: [] for user_id in user_ids if user_id not in unknown
        }
        for portion in split_by_grant(rows, _ROWS_PER_STEP):
            for stored in stored_grants_from(portion):
                found[stored.grant.user_id].append(stored)
            await asyncio.sleep(0)
        return found

    async def list(self, user_id: str) -> Sequence[Grant]:
        """Return all of the user's grants, including revoked ones, the oldest first."""
        rows = await self._database.read(_SQL["list_for_user"], user_id)
        return [grant_from(row) for row in rows]

    async def count_by_status(self) -> Mapping[GrantStatus, int]:
        """Return the number of grants of each status."""
        rows = await self._database.fetch(_SQL["count_by_status"])
        counted = {GrantStatus(row["status"]): row["grants"] for row in rows}
        return {status: counted.get(status, 0) for status in GrantStatus}

    def open_refresh_token(self, stored: StoredGrant) -> Secret:
        """Raises `UnsealingError`, also if there is none."""
        if stored.sealed_refresh_token is None:
            raise UnsealingError("no refresh token is stored")
        return self._sealer.open_refresh_token(stored.grant, stored.sealed_refresh_token)

    def open_access_token(
        self, grant: Grant, scope_set: str, token: SealedAccessToken
    ) -> AccessToken:
        """Raises `UnsealingError`."""
        return self._sealer.open_access_token(grant, scope_set, token)

    # Consents.

    async def connect(self, consent: Consent) -> Grant:
        """Create the grant, or continue the one that this user has for this account.

        Without a refresh token in the consent, the stored one is kept. Raises `NoRefreshTokenError`
        if there is none to keep, and `RevocationUnderWayError`; no grant is changed then. In the
        latter case the tokens of the consent are revoked at Google, unless another grant uses the
        account.
        """
        async with (
            self._database.exclusively(
                user_lock(consent.user_id), account_lock(consent.google_sub)
            ),
            self._database.transaction() as connection,
        ):
            try:
                return await self._connect(connection, consent)
            except RevocationUnderWayError as error:
                refused = error
                await self._outbox.add_unless_in_use(
                    connection, consent.google_sub, consent.any_token, origin="too_late"
                )
        raise refused

    async def _connect(self, connection: Connection, consent: Consent) -> Grant:
        grant = await self._writer.put_consent(connection, consent)
        # A pending consent that is confirmed later adds to the grant, and must not bring an older
        # token.
        if await self._pending.replace_refresh_tokens(
            connection,
            consent.refresh_token,
            owner=(grant.user_id, grant.google_sub, grant.client_id),
            scopes=(*consent.scopes, *consent.unrequested_scopes),
            now=grant.updated_at,
            exchanged_after=consent.exchanged_after,
        ):
            await connection.execute(_SQL["put_given_up_token"], grant.google_sub, grant.updated_at)
        return grant

    # Refreshes.

    async def save_refresh(
        self,
        grant: Grant,
        *,
        scope_set: str,
        access_token: AccessToken,
        refresh_token: Secret | None,
        lease: Lease | None = None,
    ) -> Grant | None:
        """Store the result of a refresh: an access token, and a refresh token if Google rotated it.

        Returns the grant in its current state. Returns None if it was revoked, reconnected or
        otherwise changed since `grant` was read, if another refresh token was stored than the one
        that this refresh used, or if another replica took the lease over: the access token is then
        not stored, and must not be used. A rotated refresh token is stored all the same if the
        grant still has the one that this refresh used, because Google may have revoked that one.
        Releases the lease if it is still held.
        """
        async with (
            self._database.exclusively(grant_lock(grant.id)),
            self._database.transaction() as connection,
        ):
            if lease is not None and not await is_lease_holder(connection, lease):
                return None
            used_version = None if refresh_token is None else grant.refresh_token_version
            if not await connection.fetchval(
                _SQL["is_current"], grant.id, grant.version, used_version
            ):
                if refresh_token is not None and await connection.fetchval(
                    _SQL["has_refresh_token"], grant.id, grant.refresh_token_version
                ):
                    await self._writer.replace_refresh_token(connection, grant, refresh_token)
                return None
            if lease is not None:
                await release_lease(connection, lease, ends_at=self._clock.now())
            if refresh_token is not None:
                grant = await self._writer.replace_refresh_token(connection, grant, refresh_token)
            await self._writer.put_access_token(connection, grant, scope_set, access_token)
            return grant

    async def mark_reauthorization_required(self, grant: Grant, reason: str) -> bool:
        """Record that Google no longer accepts the grant. False if it has changed already."""
        async with self._database.exclusively(grant_lock(grant.id)):
            marked = await self._database.fetchval(
                _SQL["mark_reauthorization_required"],
                grant.id,
                grant.version,
                reason,
                self._clock.now(),
                grant.refresh_token_version,
            )
        return marked is not None

    async def revoke_late_token(self, grant: Grant, refresh_token: Secret) -> None:
        """Revoke at Google a refresh token that came too late to be stored, unless a live grant or
        a pending consent uses the account.
        """
        async with (
            self._database.exclusively(account_lock(grant.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_account"], grant.google_sub)
            await self._outbox.add_unless_in_use(
                connection, grant.google_sub, refresh_token, origin="superseded"
            )

    # Revocations.

    async def revoke(self, user_id: str, google_sub: str | None, *, origin: str) -> Sequence[Grant]:
        """Revoke the user's grants (of one account, or all) and erase their tokens, immediately.

        The same transaction queues the revocation at Google of each account that no other live
        grant uses, and deletes pending consents. Returns what this call revoked.
        """
        revoked, deleted = await self._revoke(user_id, google_sub, origin=origin)
        # A failover may lose the commit before any other process knows of it.
        self._recent_changes.record_own(revoked)
        return [*revoked, *deleted]

    async def _revoke(
        self, user_id: str, google_sub: str | None, *, origin: str
    ) -> tuple[Sequence[Grant], Sequence[Grant]]:
        # Read beforehand: no request may wait for a lock while it holds a connection.
        accounts = (
            await self._accounts(self._database, user_id, None)
            if google_sub is None
            else [google_sub]
        )
        async with (
            self._database.exclusively(user_lock(user_id), *map(account_lock, accounts)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_user"], user_id)
            for account in await self._accounts(connection, user_id, google_sub):
                await connection.execute(_SQL["lock_account"], account)
            pending = await self._pending.delete_for_user(connection, user_id, google_sub)
            rows = await connection.fetch(_SQL["find_revocable_grants"], user_id, google_sub)
            revoked = [
                await self._revoke_locked(
                    connection, await self._lock_grant(connection, row), origin=origin
                )
                for row in rows
            ]
            await connection.execute(_SQL["make_last_grant_default"], user_id)
            for row in pending:
                await self._pending.revoke_at_google(connection, row, origin=origin)
            return revoked, _deleted_as_grants(revoked, pending)

    async def revoke_if_unchanged(self, grant: Grant, *, origin: str) -> Sequence[Grant]:
        """Revoke one grant only if it still has this version. Pending consents remain."""
        async with (
            self._database.exclusively(user_lock(grant.user_id), account_lock(grant.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_user"], grant.user_id)
            rows = await connection.fetch(
                _SQL["find_revocable_grants"], grant.user_id, grant.google_sub
            )
            locked = [await self._lock_grant(connection, row) for row in rows]
            revoked = [
                await self._revoke_locked(connection, row, origin=origin)
                for row in locked
                if row["version"] == grant.version
            ]
            await connection.execute(_SQL["make_last_grant_default"], grant.user_id)
        self._recent_changes.record_own(revoked)
        return revoked

    async def is_revoked(self, user_id: str, google_sub: str | None, *, since: datetime) -> bool:
        """True if nothing remains of what a revocation at that time would have ended."""
        rows = await self._database.read(_SQL["is_revoked"], user_id, google_sub, since)
        return bool(rows[0]["is_revoked"])

    async def _accounts(
        self, connection: Connection | Database, user_id: str, google_sub: str | None
    ) -> Sequence[str]:
        """Return the accounts that a revocation concerns, in the order in which all lock them."""
        rows = await connection.fetch(_SQL["find_accounts_of_user"], user_id, google_sub)
        return [row["google_sub"] for row in rows]

    async def _lock_grant(self, connection: Connection, found: asyncpg.Record) -> asyncpg.Record:
        """Return the row as it is once no other transaction can change it."""
        await connection.execute(_SQL["lock_account"], found["google_sub"])
        row = await connection.fetchrow(_SQL["lock_grant"], found["id"])
        assert row is not None  # noqa: S101  (only revoked ones are deleted, and the user is locked)
        return row

    async def _revoke_locked(
        self, connection: Connection, row: asyncpg.Record, *, origin: str
    ) -> Grant:
        grant, sealed = grant_from(row), refresh_token_from(row)
        is_used = await connection.fetchval(
            _SQL["is_account_used_by_others"], grant.google_sub, grant.id, self._clock.now()
        )
        if sealed is not None and not is_used:
            await self._outbox.add_opened(
                connection,
                grant.google_sub,
                partial(self._sealer.open_refresh_token, grant, sealed),
                origin=origin,
            )
        await connection.execute(_SQL["delete_access_tokens"], grant.id)
        revoked = await connection.fetchrow(_SQL["revoke_grant"], grant.id, self._clock.now())
        return grant_from(revoked) if revoked is not None else grant

    # Uses.

    async def write_last_uses(self, uses: Mapping[UUID, LastUse]) -> Sequence[UUID]:
        """Write when grants were last used, and by which caller, without waiting for locks.

        Returns the grants whose rows are locked, for which nothing is written.
        """
        times, callers = [use.at for use in uses.values()], [use.by for use in uses.values()]
        rows = await self._database.fetch(_SQL["write_last_uses"], list(uses), times, callers)
        return [UUID(bytes=row["id"].bytes) for row in rows]


def _deleted_as_grants(
    revoked: Sequence[Grant], pending: Sequence[asyncpg.Record]
) -> Sequence[Grant]:
    """Return deleted pending consents as revoked grants: one per account that had no grant."""
    accounts = {grant.google_sub for grant in revoked}
    deleted = {
        row["google_sub"]: pending_consent_from(row).as_grant(GrantStatus.REVOKED)
        for row in pending
        if row["google_sub"] not in accounts
    }
    return list(deleted.values())
