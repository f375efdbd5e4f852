"""Consents that await their caller's confirmation: stored apart from grants, so that no token of
them is served.

A live grant of the same user and account is not affected before the confirmation. A confirmation is
valid once, for one link, by the caller that created the link, and for ten minutes.
"""

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import account_lock, user_lock
from broker.grants.fingerprints import TokenFingerprints, fingerprint_columns
from broker.grants.model import (
    AccessToken,
    Consent,
    Grant,
    NoRefreshTokenError,
    RevocationUnderWayError,
)
from broker.grants.pending_consents.model import (
    PendingConsent,
    PendingSealer,
    decide_confirmation,
    pending_consent_from,
)
from broker.grants.pending_consents.table import PendingConsentTable
from broker.grants.revocation_outbox import RevocationOutbox
from broker.grants.rows import GrantSealer, grant_from
from broker.grants.writer import GrantWriter
from broker.secret import Secret

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants.pending_consents")
_GRANTS_SQL = load_queries("broker.grants")

CONFIRMATION_LIFETIME = timedelta(minutes=10)
MAX_WRONG_CODES = 5
"""After so many wrong codes the consent is deleted. No number of guesses would find the code."""

_CODE_BYTES = 32
_EXPIRED_PER_RUN = 100


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The consent has become a grant."""

    grant: Grant
    access_token: AccessToken | None
    """The first one, if it was kept and the grant is exactly what was consented to."""


class ConfirmationFailure(StrEnum):
    """Why a confirmation has no effect; the values are recorded in the audit trail."""

    UNKNOWN = "unknown"
    """This caller has no such pending consent: it never existed, was confirmed, was revoked, or has
    expired."""
    WRONG_CODE = "wrong_code"
    SPENT = "too_many_wrong_codes"
    """The last permitted wrong code: the consent is deleted."""
    VOID = "void"
    """Google's tokens no longer work, or a later consent contradicts this one; it is deleted."""


class PendingConsents:
    """All methods raise `StorageUnavailable` if PostgreSQL is unavailable."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        *,
        keep_access_tokens: bool,
        fingerprints: TokenFingerprints,
    ) -> None:
        self._fingerprints = fingerprints
        self._database = database
        self._sealer = PendingSealer(sealer)
        self._grant_sealer = GrantSealer(sealer)
        self._outbox = RevocationOutbox(database, sealer, clock)
        self._table = PendingConsentTable(sealer, self._outbox, fingerprints)
        self._writer = GrantWriter(
            sealer,
            clock,
            self._outbox,
            keep_access_tokens=keep_access_tokens,
            fingerprints=fingerprints,
        )
        self._clock = clock
        self._keep_access_tokens = keep_access_tokens

    # Adding.

    async def add(
        self, consent: Consent, *, link_id: UUID, caller: str
    ) -> tuple[PendingConsent, Secret]:
        """Store a consent, and return it with its confirmation code.

        Replaces what an earlier attempt of the same link stored without learning whether its commit
        succeeded; the code of that one was never delivered. Raises `NoRefreshTokenError` and
        `RevocationUnderWayError` as `GrantStore.connect` does; nothing is stored then.
        """
        now, code = self._clock.now(), Secret(secrets.token_urlsafe(_CODE_BYTES))
        pending = PendingConsent(
            link_id=link_id,
            caller=caller,
            user_id=consent.user_id,
            google_sub=consent.google_sub,
            email=consent.email,
            client_id=consent.client_id,
            scopes=consent.scopes,
            created_at=now,
            expires_at=now + CONFIRMATION_LIFETIME,
        )
        async with (
            self._database.exclusively(
                user_lock(consent.user_id), account_lock(consent.google_sub)
            ),
            self._database.transaction() as connection,
        ):
            await connection.execute(_GRANTS_SQL["lock_user"], consent.user_id)
            await self._lock_accounts(connection, pending)
            try:
                return await self._add(connection, pending, consent, code), code
            except RevocationUnderWayError as error:
                refused = error
                await self._outbox.add_unless_in_use(
                    connection, consent.google_sub, consent.any_token, origin="too_late"
                )
        raise refused

    async def _add(
        self, connection: Connection, pending: PendingConsent, consent: Consent, code: Secret
    ) -> PendingConsent:
        """The transaction has locked user and account."""
        if await self._outbox.may_have_revoked(
            connection, consent.google_sub, consent.exchanged_after
        ):
            raise RevocationUnderWayError
        row = await self._lock_user_grant(connection, consent)
        consent = consent.with_scopes_by(grant_from(row) if row is not None else None)
        pending = replace(pending, scopes=consent.scopes)
        live = _usable_grant(row, consent)
        if consent.refresh_token is None and live is None:
            raise NoRefreshTokenError
        # A queued revocation would revoke this consent too. If the consent is not confirmed, and no
        # other grant uses the account, the account is revoked at Google then.
        await self._outbox.cancel(connection, consent.google_sub, at=pending.created_at)
        lost = await connection.fetchrow(_SQL["delete_lost_attempt"], *_attempt(pending))
        await self._put_given_up_token(connection, consent, row, lost)
        await self._insert(connection, pending, consent, live, code)
        if lost is not None:
            await self._table.revoke_at_google(connection, lost, origin="unconfirmed")
        return pending

    async def _put_given_up_token(
        self,
        connection: Connection,
        consent: Consent,
        grant_row: asyncpg.Record | None,
        lost: asyncpg.Record | None,
    ) -> None:
        """Record that a late security event of Google may concern an older token, not this one."""
        now = self._clock.now()
        had_one = await self._table.replace_refresh_tokens(
            connection,
            consent.refresh_token,
            owner=(consent.user_id, consent.google_sub, consent.client_id),
            scopes=(*consent.scopes, *consent.unrequested_scopes),
            now=now,
            exchanged_after=consent.exchanged_after,
        )
        for row in (grant_row, lost):
            if row is not None and row["google_sub"] == consent.google_sub:
                had_one = had_one or row["sealed_refresh_token"] is not None
        if had_one and consent.refresh_token is not None:
            await connection.execute(_GRANTS_SQL["put_given_up_token"], consent.google_sub, now)

    async def _lock_accounts(self, connection: Connection, pending: PendingConsent) -> None:
        """Lock this account, and that of the attempt that this consent replaces."""
        lost = await connection.fetchval(_SQL["find_account_of_lost_attempt"], *_attempt(pending))
        for google_sub in sorted({pending.google_sub, lost or pending.google_sub}):
            await connection.execute(_GRANTS_SQL["lock_account"], google_sub)

    async def _insert(
        self,
        connection: Connection,
        pending: PendingConsent,
        consent: Consent,
        live: Grant | None,
        code: Secret,
    ) -> None:
        access = consent.access_token if self._keep_access_tokens else None
        await connection.execute(
            _SQL["insert_pending_consent"],
            pending.link_id,
            pending.caller,
            pending.user_id,
            pending.google_sub,
            pending.email,
            pending.client_id,
            list(pending.scopes),
            live.version if live else None,
            *_columns(self._sealer.seal("refresh_token", pending, consent.refresh_token)),
            *_columns(self._sealer.seal("access_token", pending, access.value if access else None)),
            list(access.scopes) if access else None,
            access.obtained_at if access else None,
            access.expires_at if access else None,
            _code_hash(pending.link_id, pending.caller, code),
            pending.created_at,
            pending.expires_at,
            consent.exchanged_after,
            *fingerprint_columns(self._fingerprints, consent.refresh_token),
        )

    # Reading.

    async def find_for_users(
        self, user_ids: Sequence[str]
    ) -> Mapping[str, Sequence[PendingConsent]]:
        """Return pending consents by user, the newest first; users without any are missing."""
        found: dict[str, list[PendingConsent]] = {}
        now = self._clock.now()
        for row in await self._database.fetch(
            _SQL["find_pending_consents_of_users"], list(user_ids), now
        ):
            found.setdefault(row["user_id"], []).append(pending_consent_from(row))
        return found

    async def find_user(self, link_id: UUID, *, caller: str) -> str | None:
        """Return the user of a link's pending consent, if this caller may confirm it."""
        user_id: str | None = await self._database.fetchval(
            _SQL["find_pending_consent"], link_id, caller, self._clock.now()
        )
        return user_id

    # Confirming.

    async def confirm(
        self, link_id: UUID, unverified_code: Secret, *, caller: str
    ) -> Confirmed | ConfirmationFailure:
        """Make a pending consent a grant. Of several concurrent calls, one succeeds."""
        key = (link_id, caller, self._clock.now())
        place = await self._database.fetchrow(_SQL["find_pending_consent"], *key)
        if place is None:
            return ConfirmationFailure.UNKNOWN
        async with (
            self._database.exclusively(
                user_lock(place["user_id"]), account_lock(place["google_sub"])
            ),
            self._database.transaction() as connection,
        ):
            await self._lock(connection, place["user_id"], place["google_sub"])
            row = await connection.fetchrow(_SQL["lock_pending_consent"], *key)
            if row is None:
                return ConfirmationFailure.UNKNOWN
            if not hmac.compare_digest(
                row["code_hash"], _code_hash(link_id, caller, unverified_code)
            ):
                return await self._count_wrong_code(connection, row)
            await connection.execute(_SQL["delete_pending_consent"], link_id)
            confirmed = await self._make_grant(connection, row)
            if confirmed is None:
                await self._table.revoke_at_google(connection, row, origin="unconfirmed")
            return confirmed or ConfirmationFailure.VOID

    async def _count_wrong_code(
        self, connection: Connection, row: asyncpg.Record
    ) -> ConfirmationFailure:
        wrong_codes = await connection.fetchval(_SQL["count_wrong_code"], row["link_id"])
        if wrong_codes < MAX_WRONG_CODES:
            return ConfirmationFailure.WRONG_CODE
        await connection.execute(_SQL["delete_pending_consent"], row["link_id"])
        await self._table.revoke_at_google(connection, row, origin="unconfirmed")
        return ConfirmationFailure.SPENT

    async def _make_grant(self, connection: Connection, row: asyncpg.Record) -> Confirmed | None:
        """Return None if the consent can't become a grant any more."""
        try:
            consent = self._sealer.open_consent(row)
        except UnsealingError:
            logger.exception(
                "a pending consent does not open with any configured key; its user has to connect "
                "again",
                extra={"event": "pending_consent_unreadable"},
            )
            return None
        grant_row = await self._lock_user_grant(connection, consent)
        decision = decide_confirmation(
            consent,
            _usable_grant(grant_row, consent),
            seen_version=row["seen_version"],
            has_same_token=self._grant_sealer.has_refresh_token(grant_row, consent.refresh_token),
        )
        if not isinstance(decision, Consent):
            return Confirmed(decision, None) if decision is not None else None
        try:
            grant = await self._writer.put_consent(connection, decision)
        except (NoRefreshTokenError, RevocationUnderWayError):
            return None
        return Confirmed(grant, decision.access_token)

    # Ending without a grant.

    async def expire(self) -> Sequence[PendingConsent]:
        """Delete consents that were not confirmed in time; return those that this call deleted."""
        now, expired = self._clock.now(), []
        for place in await self._database.fetch(
            _SQL["find_expired_consents"], now, _EXPIRED_PER_RUN
        ):
            async with (
                self._database.exclusively(
                    user_lock(place["user_id"]), account_lock(place["google_sub"])
                ),
                self._database.transaction() as connection,
            ):
                await self._lock(connection, place["user_id"], place["google_sub"])
                row = await connection.fetchrow(
                    _SQL["delete_expired_consent"], place["link_id"], now
                )
                if row is not None:
                    await self._table.revoke_at_google(connection, row, origin="unconfirmed")
                    expired.append(pending_consent_from(row))
        return expired

    async def reject(self, consent: Consent) -> None:
        """Revoke at Google a consent that was given for another account than requested."""
        async with (
            self._database.exclusively(account_lock(consent.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_GRANTS_SQL["lock_account"], consent.google_sub)
            await self._outbox.add_unless_in_use(
                connection, consent.google_sub, consent.any_token, origin="account_mismatch"
            )

    async def _lock(self, connection: Connection, user_id: str, google_sub: str) -> None:
        await connection.execute(_GRANTS_SQL["lock_user"], user_id)
        await connection.execute(_GRANTS_SQL["lock_account"], google_sub)

    async def _lock_user_grant(
        self, connection: Connection, consent: Consent
    ) -> asyncpg.Record | None:
        return await connection.fetchrow(
            _GRANTS_SQL["lock_user_grant"], consent.user_id, consent.google_sub
        )


def _usable_grant(row: asyncpg.Record | None, consent: Consent) -> Grant | None:
    """Return the grant of the row, if its refresh token works for the consent's client."""
    if row is None or row["sealed_refresh_token"] is None:
        return None
    grant = grant_from(row)
    return grant if consent.can_keep_token_of(grant) else None


def _attempt(pending: PendingConsent) -> tuple[UUID, str, str]:
    return pending.link_id, pending.caller, pending.user_id


def _columns(sealed: Sealed | None) -> tuple[bytes | None, str | None]:
    return (None, None) if sealed is None else (sealed.ciphertext, sealed.key_id)


def _code_hash(link_id: UUID, caller: str, code: Secret) -> bytes:
    """256 random bits need no salt; link and caller bind the hash to its row."""
    return hashlib.sha256(json.dumps([str(link_id), caller, code.reveal()]).encode()).digest()
