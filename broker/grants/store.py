"""The grants table: every change to a grant, each one transaction, each safe against a late writer.

A change that was decided on an older version of the grant is refused, not merged. Nothing here
talks to Google.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import of_account, of_grant, of_user
from broker.grants.endings import ConsentEndings
from broker.grants.fallback_reads import FallbackReads
from broker.grants.known_changes import KnownChanges
from broker.grants.lookups import TokenLookups
from broker.grants.model import AccessToken, Grant, GrantStatus, LastUse, scope_set
from broker.grants.newer_tokens import NewerTokens
from broker.grants.pending.rows import pending_consent_from
from broker.grants.refresh_lease import Lease, end_lease
from broker.grants.rows import (
    GrantSealer,
    SealedAccessToken,
    StoredGrant,
    grant_from,
    portions_of,
    refresh_token_from,
    stored_grants_from,
)
from broker.secret import Secret

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

_ROWS_AT_ONCE = 50
"""Rows that are read into grants before others get their turn on the event loop."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What Google answered to a consent, after the ID token was verified."""

    user_id: str
    google_sub: str
    email: str
    client_id: str
    scopes: tuple[str, ...]
    """As granted, as far as this user was asked for it: perhaps less than asked on this trip."""
    refresh_token: Secret | None
    access_token: AccessToken | None
    """None where it was not kept until the consent took effect."""
    given_at: datetime | None = None
    """Where it waited since; else it is given now."""
    beyond: tuple[str, ...] = ()
    """What Google's answer named besides: its tokens can fetch it, and nobody was asked for it."""
    is_email_theirs: bool = True
    """False where Google says that nobody has shown so: then it names no account."""
    exchanged_after: datetime | None = None
    """When the code was still to be exchanged, by the database's clock: what Google was told to end
    since then may be this."""

    @property
    def any_token(self) -> Secret | None:
        """One by which Google can be told to end it."""
        if self.refresh_token is None and self.access_token is not None:
            return self.access_token.value
        return self.refresh_token

    def beside(self, before: Grant | None) -> "Consent":
        """The same with what the user's grant has got since it was read: that was asked for."""
        if before is None or before.status is GrantStatus.REVOKED:
            return self
        regained = [scope for scope in self.beyond if scope in before.scopes]
        beyond = tuple(scope for scope in self.beyond if scope not in regained)
        return replace(self, scopes=(*self.scopes, *regained), beyond=beyond)


class NoRefreshTokenError(Exception):
    """Google sent no refresh token and none is held that still works: the grant would not last."""


class RevocationUnderWayError(Exception):
    """Google is being told to end this account's authorization, or was since the code went there:
    what it gave for that has ended, too, or may have."""


class GrantStore:
    """Reads and changes grants. All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        *,
        keep_access_tokens: bool,
        replica: Database | None = None,
        lookups: TokenLookups | None = None,
        known: KnownChanges | None = None,
    ) -> None:
        """`replica` is read while the primary is away, or hangs, and lacks no change in `known`.
        Without `lookups`, those of new refresh tokens are left to be filled in later.
        """
        self._known = known if known is not None else KnownChanges(clock)
        self._reads = FallbackReads(database, replica, clock, self._known)
        self._lookups = lookups
        self._database = database
        self._sealer = GrantSealer(sealer)
        self._endings = ConsentEndings(sealer, clock)
        self._newer_tokens = NewerTokens(sealer, lookups)
        self._clock = clock
        self._keep_access_tokens = keep_access_tokens

    # Reading.

    async def find(self, user_id: str) -> Sequence[StoredGrant]:
        """The user's grants that are not revoked, the oldest first, in one round trip."""
        return stored_grants_from(await self._reads.read(_SQL["find_for_user"], user_id))

    async def find_many(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[StoredGrant]]:
        """The live grants of many users, in one round trip.

        Left out is whose grants can't be told; that is not the same as a user without any.
        """
        rows, untold = await self._reads.read_many(_SQL["find_for_users"], user_ids)
        found: dict[str, list[StoredGrant]] = {
            user_id: [] for user_id in user_ids if user_id not in untold
        }
        for portion in portions_of(rows, _ROWS_AT_ONCE):
            for stored in stored_grants_from(portion):
                found[stored.grant.user_id].append(stored)
            await asyncio.sleep(0)
        return found

    async def list(self, user_id: str) -> Sequence[Grant]:
        """All of the user's grants, revoked ones too, the oldest first."""
        rows = await self._database.read(_SQL["list_for_user"], user_id)
        return [grant_from(row) for row in rows]

    async def count_by_status(self) -> Mapping[GrantStatus, int]:
        """How many grants there are of each status."""
        rows = await self._database.fetch(_SQL["count_by_status"])
        counted = {GrantStatus(row["status"]): row["grants"] for row in rows}
        return {status: counted.get(status, 0) for status in GrantStatus}

    def open_refresh_token(self, stored: StoredGrant) -> Secret:
        """Raises `UnsealingError`, also when there is none."""
        if stored.sealed_refresh_token is None:
            raise UnsealingError("no refresh token is held")
        return self._sealer.open_refresh_token(stored.grant, stored.sealed_refresh_token)

    def open_access_token(
        self, grant: Grant, held_under: str, held: SealedAccessToken
    ) -> AccessToken:
        """The token held under a scope set. Raises `UnsealingError`."""
        return self._sealer.open_access_token(grant, held_under, held)

    # A consent.

    async def connect(self, consent: Consent) -> Grant:
        """Make the grant, or continue the one that this user has for this account.

        An omitted refresh token keeps the one held. Raises `NoRefreshTokenError` when there is none
        to keep, and `RevocationUnderWayError`; no grant is changed then. In the latter case Google
        is told to end what it gave, unless somebody else's live grant needs the account.
        """
        async with (
            self._database.exclusively(of_user(consent.user_id), of_account(consent.google_sub)),
            self._database.transaction() as connection,
        ):
            try:
                return await self._connect(connection, consent)
            except RevocationUnderWayError as error:
                refused = error
                await self._endings.refuse(
                    connection, consent.google_sub, consent.any_token, origin="too_late"
                )
        raise refused

    async def _connect(self, connection: Connection, consent: Consent) -> Grant:
        grant = await self.put_consent(connection, consent)
        # Confirmed later, what waits adds to the grant, and must not bring an older token.
        if await self._newer_tokens.hand_on(
            connection,
            consent.refresh_token,
            of=(grant.user_id, grant.google_sub, grant.client_id),
            named=(*consent.scopes, *consent.beyond),
            now=grant.updated_at,
            exchanged_after=consent.exchanged_after,
        ):
            await connection.execute(_SQL["note_given_up"], grant.google_sub, grant.updated_at)
        return grant

    async def put_consent(self, connection: Connection, consent: Consent) -> Grant:
        """The same as part of the caller's transaction, in which nothing was changed for whom this
        raises `RevocationUnderWayError`, and both locks are held.
        """
        await connection.execute(_SQL["lock_user"], consent.user_id)
        await connection.execute(_SQL["lock_account"], consent.google_sub)
        if await self._endings.is_ended(connection, consent.google_sub, consent.exchanged_after):
            raise RevocationUnderWayError
        row = await connection.fetchrow(
            _SQL["find_by_account"], consent.user_id, consent.google_sub
        )
        before = grant_from(row) if row is not None else None
        consent = consent.beside(before)
        grant = self._granted(consent, before)
        sealed = self._kept_or_new_refresh_token(
            consent, grant, before, refresh_token_from(row) if row is not None else None
        )
        grant = await self._put_grant(connection, grant, before, sealed)
        await self._put_lookups(connection, grant, consent.refresh_token)
        if consent.refresh_token is not None and row is not None and row["sealed_refresh_token"]:
            await connection.execute(_SQL["note_given_up"], grant.google_sub, grant.updated_at)
        await connection.execute(_SQL["forget_access_tokens"], grant.id)
        await connection.execute(_SQL["drop_revocations"], grant.google_sub, grant.updated_at)
        if consent.access_token is not None:
            await self._put_access_token(
                connection, grant, scope_set(consent.scopes), consent.access_token
            )
        return grant

    def _granted(self, consent: Consent, before: Grant | None) -> Grant:
        now = self._clock.now()
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

    def _kept_or_new_refresh_token(
        self, consent: Consent, grant: Grant, before: Grant | None, held: Sealed | None
    ) -> Sealed:
        if consent.refresh_token is not None:
            return self._sealer.seal_refresh_token(grant, consent.refresh_token)
        still_works = (
            before is not None
            and before.status is GrantStatus.ACTIVE
            and before.client_id == consent.client_id
        )
        if held is None or not still_works:
            raise NoRefreshTokenError
        return held

    async def _put_grant(
        self, connection: Connection, grant: Grant, before: Grant | None, sealed: Sealed
    ) -> Grant:
        has_other = await connection.fetchval(_SQL["has_other"], grant.user_id, grant.google_sub)
        was_default = before is not None and before.is_default
        row = await connection.fetchrow(
            _SQL["put_grant"],
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

    # A refresh.

    async def save_refresh(
        self,
        grant: Grant,
        *,
        held_under: str,
        access_token: AccessToken,
        refresh_token: Secret | None,
        lease: Lease | None = None,
    ) -> Grant | None:
        """Store what a refresh brought: a new access token, and a new refresh token if one came.

        Returns the grant as it is now, or nothing when it was revoked, reconnected or otherwise
        changed since `grant` was read, when another refresh token was stored meanwhile than the one
        that brought this one, or when somebody took the lease over: then the access token is not
        written, and must not be used. A refresh token that came is kept all the same where the one
        that brought it is still the grant's: Google may have ended that one. A lease that still
        holds ends with this.
        """
        async with (
            self._database.exclusively(of_grant(grant.id)),
            self._database.transaction() as connection,
        ):
            if lease is not None and not await connection.fetchval(
                _SQL["is_holder"], lease.grant_id, lease.held_under, lease.fence
            ):
                return None
            replaced = None if refresh_token is None else grant.refresh_token_version
            if not await connection.fetchval(_SQL["is_current"], grant.id, grant.version, replaced):
                if refresh_token is not None and await connection.fetchval(
                    _SQL["has_refresh_token"], grant.id, grant.refresh_token_version
                ):
                    await self._replace_refresh_token(connection, grant, refresh_token)
                return None
            if lease is not None:
                await end_lease(connection, lease, ends_at=self._clock.now())
            if refresh_token is not None:
                grant = await self._replace_refresh_token(connection, grant, refresh_token)
            await self._put_access_token(connection, grant, held_under, access_token)
            return grant

    async def _replace_refresh_token(
        self, connection: Connection, grant: Grant, refresh_token: Secret
    ) -> Grant:
        sealed = self._sealer.seal_refresh_token(grant, refresh_token)
        version = await connection.fetchval(
            _SQL["replace_refresh_token"],
            grant.id,
            sealed.ciphertext,
            sealed.key_id,
            self._clock.now(),
        )
        await self._put_lookups(connection, grant, refresh_token)
        return replace(grant, refresh_token_version=version)

    async def _put_lookups(
        self, connection: Connection, grant: Grant, refresh_token: Secret | None
    ) -> None:
        """Those of a token that is kept stay as they are."""
        if self._lookups is not None and refresh_token is not None:
            made = self._lookups.of(refresh_token)
            await connection.execute(
                _SQL["put_lookups"], grant.id, made.key_id, made.prefix, made.digest
            )

    async def _put_access_token(
        self, connection: Connection, grant: Grant, held_under: str, token: AccessToken
    ) -> None:
        if not self._keep_access_tokens:
            return
        sealed = self._sealer.seal_access_token(grant, held_under, token)
        await connection.execute(
            _SQL["put_access_token"],
            grant.id,
            grant.version,
            held_under,
            list(token.scopes),
            sealed.ciphertext,
            sealed.key_id,
            token.obtained_at,
            token.expires_at,
        )

    async def mark_reauthorization_required(self, grant: Grant, reason: str) -> bool:
        """Note that Google no longer honours the grant. False when it had already changed."""
        async with self._database.exclusively(of_grant(grant.id)):
            marked = await self._database.fetchval(
                _SQL["mark_reauthorization_required"],
                grant.id,
                grant.version,
                reason,
                self._clock.now(),
                grant.refresh_token_version,
            )
        return marked is not None

    async def give_up(self, grant: Grant, refresh_token: Secret) -> None:
        """Have Google told to end a refresh token that came too late to be stored, unless a live
        grant, or a consent that waits, holds the account.
        """
        async with (
            self._database.exclusively(of_account(grant.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_account"], grant.google_sub)
            await self._endings.refuse(
                connection, grant.google_sub, refresh_token, origin="superseded"
            )

    # A withdrawal.

    async def revoke(self, user_id: str, google_sub: str | None, *, origin: str) -> Sequence[Grant]:
        """End the user's grants (of one account, or all) and erase their tokens, here and now.

        Google is to be told about each whose account no other live grant needs; that is noted in
        the same transaction. What waits for a confirmation ends as well. Returns the grants that
        ended by this call.
        """
        revoked, ended_beside = await self._revoke(user_id, google_sub, origin=origin)
        # Should a failover lose it: nobody else may have heard of it yet.
        self._known.note_own(revoked)
        return [*revoked, *ended_beside]

    async def _revoke(
        self, user_id: str, google_sub: str | None, *, origin: str
    ) -> tuple[Sequence[Grant], Sequence[Grant]]:
        # Looked up before, for nobody may wait for another's lock with a connection in hand.
        accounts = await self._accounts(user_id) if google_sub is None else [google_sub]
        async with (
            self._database.exclusively(of_user(user_id), *map(of_account, accounts)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_user"], user_id)
            await self._endings.lock_accounts(connection, user_id, google_sub)
            unconfirmed = await self._endings.take(connection, user_id, google_sub)
            rows = await connection.fetch(_SQL["revocable"], user_id, google_sub)
            revoked = [
                await self._revoke_locked(
                    connection, await self._lock_one(connection, row), origin=origin
                )
                for row in rows
            ]
            await connection.execute(_SQL["promote_last"], user_id)
            for row in unconfirmed:
                await self._endings.undo(connection, row, origin=origin)
            return revoked, _ended_beside(revoked, unconfirmed)

    async def revoke_unchanged(self, grant: Grant, *, origin: str) -> Sequence[Grant]:
        """The same for one grant, only if it still has this version; nothing beside it ends."""
        async with (
            self._database.exclusively(of_user(grant.user_id), of_account(grant.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_user"], grant.user_id)
            rows = await connection.fetch(_SQL["revocable"], grant.user_id, grant.google_sub)
            locked = [await self._lock_one(connection, row) for row in rows]
            revoked = [
                await self._revoke_locked(connection, row, origin=origin)
                for row in locked
                if row["version"] == grant.version
            ]
            await connection.execute(_SQL["promote_last"], grant.user_id)
        self._known.note_own(revoked)
        return revoked

    async def is_revoked(self, user_id: str, google_sub: str | None, *, since: datetime) -> bool:
        """Whether nothing is left of what a withdrawal at that time would have ended."""
        rows = await self._database.read(_SQL["is_revoked"], user_id, google_sub, since)
        return bool(rows[0]["is_revoked"])

    async def _accounts(self, user_id: str) -> Sequence[str]:
        rows = await self._database.fetch(_SQL["accounts_of_user"], user_id, None)
        return [row["google_sub"] for row in rows]

    async def _lock_one(self, connection: Connection, found: asyncpg.Record) -> asyncpg.Record:
        """As it is once nobody else changes it."""
        await connection.execute(_SQL["lock_account"], found["google_sub"])
        row = await connection.fetchrow(
            "SELECT * FROM grants WHERE id = $1 FOR UPDATE", found["id"]
        )
        assert row is not None  # noqa: S101  (only revoked ones are deleted, and the user is locked)
        return row

    async def _revoke_locked(
        self, connection: Connection, row: asyncpg.Record, *, origin: str
    ) -> Grant:
        grant, sealed = grant_from(row), refresh_token_from(row)
        shared = await connection.fetchval(
            _SQL["account_is_shared"], grant.google_sub, grant.id, self._clock.now()
        )
        if sealed is not None and not shared:
            await self._note_revocation(connection, grant, sealed, origin=origin)
        await connection.execute(_SQL["forget_access_tokens"], grant.id)
        revoked = await connection.fetchrow(_SQL["revoke"], grant.id, self._clock.now())
        return grant_from(revoked) if revoked is not None else grant

    async def _note_revocation(
        self, connection: Connection, grant: Grant, sealed: Sealed, *, origin: str
    ) -> None:
        revocation_id = uuid4()
        try:
            token = self._sealer.open_refresh_token(grant, sealed)
        except UnsealingError:
            # The withdrawal must hold here even if Google can't be told any more.
            logger.exception("a token that no longer opens can't be revoked at Google")
            return
        resealed = self._sealer.seal_revocation(revocation_id, grant.google_sub, token)
        await connection.execute(
            _SQL["put_revocation"],
            revocation_id,
            grant.google_sub,
            resealed.ciphertext,
            resealed.key_id,
            origin,
            self._clock.now(),
        )

    # Use.

    async def touch(self, used: Mapping[UUID, LastUse]) -> Sequence[UUID]:
        """Note when grants were last used, and by whom; waits for nobody.

        Returns those that somebody else has in hand, of which nothing was noted.
        """
        times, callers = [use.at for use in used.values()], [use.by for use in used.values()]
        rows = await self._database.fetch(_SQL["touch"], list(used), times, callers)
        return [UUID(bytes=row["id"].bytes) for row in rows]


def _ended_beside(
    revoked: Sequence[Grant], unconfirmed: Sequence[asyncpg.Record]
) -> Sequence[Grant]:
    """What was never confirmed, as grants that ended: one for each account that had no other."""
    accounts = {grant.google_sub for grant in revoked}
    ended = {
        row["google_sub"]: pending_consent_from(row).as_grant(GrantStatus.REVOKED)
        for row in unconfirmed
        if row["google_sub"] not in accounts
    }
    return list(ended.values())
