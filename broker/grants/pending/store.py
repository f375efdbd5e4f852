"""Consents that wait for their caller's confirmation: kept apart, out of reach of every token.

A live grant of the same user and account goes on unharmed until the confirmation, which is good
once, for one link, by the caller that made it, and for a few minutes.
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
from broker.database.shares import of_account, of_user
from broker.grants.endings import ConsentEndings
from broker.grants.lookups import TokenLookups
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.grants.newer_tokens import NewerTokens, lookup_columns
from broker.grants.pending.rows import PendingConsent, PendingSealer, pending_consent_from
from broker.grants.rows import grant_from
from broker.grants.store import Consent, GrantStore, NoRefreshTokenError, RevocationUnderWayError
from broker.secret import Secret

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

CONFIRMATION_LIFE = timedelta(minutes=10)
WRONG_CODES = 5
"""After so many the consent is erased. No number of guesses would find the code."""

_CODE_BYTES = 32
_ENDED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The consent has taken effect."""

    grant: Grant
    access_token: AccessToken | None
    """The first one, where it was kept and the grant has become what was consented to."""


class Unconfirmed(StrEnum):
    """Why a confirmation has no effect; fit for audit records."""

    UNKNOWN = "unknown"
    """Nothing waits for this caller: never did, was confirmed already, withdrawn, or expired."""
    WRONG_CODE = "wrong_code"
    SPENT = "too_many_wrong_codes"
    """That was one wrong code too many: the consent is erased."""
    VOID = "void"
    """What Google gave is no longer good, or a later consent says otherwise; it is erased."""


class PendingConsents:
    """All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        grants: GrantStore,
        *,
        keep_access_tokens: bool,
        lookups: TokenLookups,
    ) -> None:
        self._lookups = lookups
        self._newer_tokens = NewerTokens(sealer, lookups)
        self._database = database
        self._sealer = PendingSealer(sealer)
        self._endings = ConsentEndings(sealer, clock)
        self._clock = clock
        self._grants = grants
        self._keep_access_tokens = keep_access_tokens

    # Waiting.

    async def hold(
        self, consent: Consent, *, link_id: UUID, caller: str
    ) -> tuple[PendingConsent, Secret]:
        """Keep a consent until it is confirmed with the code that comes with it, or has expired.

        It takes the place of what the same link left behind when it was lost whether that was
        stored; nobody has the code of that. Raises `NoRefreshTokenError` and
        `RevocationUnderWayError` as `GrantStore.connect` does; nothing is kept then.
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
            expires_at=now + CONFIRMATION_LIFE,
        )
        async with (
            self._database.exclusively(of_user(consent.user_id), of_account(consent.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_user"], consent.user_id)
            await self._lock_accounts(connection, pending)
            try:
                return await self._hold(connection, pending, consent, code), code
            except RevocationUnderWayError as error:
                refused = error
                await self._endings.refuse(
                    connection, consent.google_sub, consent.any_token, origin="too_late"
                )
        raise refused

    async def _hold(
        self, connection: Connection, pending: PendingConsent, consent: Consent, code: Secret
    ) -> PendingConsent:
        """As part of a transaction that has locked user and account."""
        if await self._endings.is_ended(connection, consent.google_sub, consent.exchanged_after):
            raise RevocationUnderWayError
        row = await self._grant_row(connection, consent)
        consent = consent.beside(grant_from(row) if row is not None else None)
        pending = replace(pending, scopes=consent.scopes)
        live = _live(row, consent)
        if consent.refresh_token is None and live is None:
            raise NoRefreshTokenError
        # A revocation that waits would end this consent too; if this is not confirmed, and
        # nobody else holds the account, Google is told then.
        await connection.execute(_SQL["drop_revocations"], consent.google_sub, pending.created_at)
        lost = await connection.fetchrow(_SQL["take_lost_consent"], *_owner_of(pending))
        await self._give_up_older(connection, consent, row, lost)
        await self._put(connection, pending, consent, live, code)
        if lost is not None:
            await self._endings.undo(connection, lost, origin="unconfirmed")
        return pending

    async def _give_up_older(
        self,
        connection: Connection,
        consent: Consent,
        grant_row: asyncpg.Record | None,
        lost: asyncpg.Record | None,
    ) -> None:
        """Note that Google may tell late of the end of a token of before, and not mean this one."""
        now = self._clock.now()
        had_one = await self._newer_tokens.hand_on(
            connection,
            consent.refresh_token,
            of=(consent.user_id, consent.google_sub, consent.client_id),
            named=(*consent.scopes, *consent.beyond),
            now=now,
            exchanged_after=consent.exchanged_after,
        )
        for row in (grant_row, lost):
            if row is not None and row["google_sub"] == consent.google_sub:
                had_one = had_one or row["sealed_refresh_token"] is not None
        if had_one and consent.refresh_token is not None:
            await connection.execute(_SQL["note_given_up"], consent.google_sub, now)

    async def _lock_accounts(self, connection: Connection, pending: PendingConsent) -> None:
        """This account, and that of a consent that this one takes the place of."""
        lost = await connection.fetchval(_SQL["account_of_lost_consent"], *_owner_of(pending))
        for google_sub in sorted({pending.google_sub, lost or pending.google_sub}):
            await connection.execute(_SQL["lock_account"], google_sub)

    async def _put(
        self,
        connection: Connection,
        pending: PendingConsent,
        consent: Consent,
        live: Grant | None,
        code: Secret,
    ) -> None:
        access = consent.access_token if self._keep_access_tokens else None
        await connection.execute(
            _SQL["put_pending_consent"],
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
            *lookup_columns(self._lookups, consent.refresh_token),
        )

    async def of_users(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[PendingConsent]]:
        """What waits, by user, the newest first; users without any are left out."""
        found: dict[str, list[PendingConsent]] = {}
        now = self._clock.now()
        for row in await self._database.fetch(
            _SQL["pending_consents_of_users"], list(user_ids), now
        ):
            found.setdefault(row["user_id"], []).append(pending_consent_from(row))
        return found

    async def user_of(self, link_id: UUID, *, caller: str) -> str | None:
        """Whose consent a link brought, if it waits for this caller."""
        user_id: str | None = await self._database.fetchval(
            _SQL["find_pending_consent"], link_id, caller, self._clock.now()
        )
        return user_id

    # Ending, well or not.

    async def confirm(
        self, link_id: UUID, unverified_code: Secret, *, caller: str
    ) -> Confirmed | Unconfirmed:
        """Let a consent take effect. Of several at once, one succeeds."""
        waits = (link_id, caller, self._clock.now())
        place = await self._database.fetchrow(_SQL["find_pending_consent"], *waits)
        if place is None:
            return Unconfirmed.UNKNOWN
        async with (
            self._database.exclusively(of_user(place["user_id"]), of_account(place["google_sub"])),
            self._database.transaction() as connection,
        ):
            await self._lock(connection, place["user_id"], place["google_sub"])
            row = await connection.fetchrow(_SQL["lock_pending_consent"], *waits)
            if row is None:
                return Unconfirmed.UNKNOWN
            if not hmac.compare_digest(
                row["code_hash"], _code_hash(link_id, caller, unverified_code)
            ):
                return await self._note_wrong_code(connection, row)
            await connection.execute(_SQL["take_pending_consent"], link_id)
            confirmed = await self._take_effect(connection, row)
            if confirmed is None:
                await self._endings.undo(connection, row, origin="unconfirmed")
            return confirmed or Unconfirmed.VOID

    async def _note_wrong_code(self, connection: Connection, row: asyncpg.Record) -> Unconfirmed:
        if await connection.fetchval(_SQL["note_wrong_code"], row["link_id"]) < WRONG_CODES:
            return Unconfirmed.WRONG_CODE
        await connection.execute(_SQL["take_pending_consent"], row["link_id"])
        await self._endings.undo(connection, row, origin="unconfirmed")
        return Unconfirmed.SPENT

    async def _take_effect(self, connection: Connection, row: asyncpg.Record) -> Confirmed | None:
        """The grant; nothing if what was consented to can't become one any more."""
        try:
            consent = self._opened(row)
        except UnsealingError:
            logger.exception("a pending consent does not open; the user has to connect again")
            return None
        grant_row = await self._grant_row(connection, consent)
        live = _live(grant_row, consent)
        if live is not None and live.version != row["seen_version"]:
            lost = set(live.scopes) - set(consent.scopes)
            if lost and set(consent.scopes) <= set(live.scopes):
                # A later consent has all of this, and more: it must not be cut back to this.
                return Confirmed(live, None)
            if lost and not self._newer_tokens.is_that_of(grant_row, consent.refresh_token):
                return None
            if lost:
                consent = _added_to(live, consent)
        try:
            grant = await self._grants.put_consent(connection, consent)
        except (NoRefreshTokenError, RevocationUnderWayError):
            return None
        return Confirmed(grant, consent.access_token)

    def _opened(self, row: asyncpg.Record) -> Consent:
        return Consent(
            user_id=row["user_id"],
            google_sub=row["google_sub"],
            email=row["email"],
            client_id=row["client_id"],
            scopes=tuple(row["scopes"]),
            refresh_token=self._sealer.open_refresh_token(row),
            access_token=self._sealer.open_access_token(row),
            given_at=row["created_at"],
            exchanged_after=row["exchanged_after"],
        )

    async def expire(self) -> Sequence[PendingConsent]:
        """End what was not confirmed in time; gives what ended by this call."""
        now, ended = self._clock.now(), []
        for place in await self._database.fetch(_SQL["expired_consents"], now, _ENDED_AT_ONCE):
            async with (
                self._database.exclusively(
                    of_user(place["user_id"]), of_account(place["google_sub"])
                ),
                self._database.transaction() as connection,
            ):
                await self._lock(connection, place["user_id"], place["google_sub"])
                row = await connection.fetchrow(_SQL["take_expired_consent"], place["link_id"], now)
                if row is not None:
                    await self._endings.undo(connection, row, origin="unconfirmed")
                    ended.append(pending_consent_from(row))
        return ended

    async def refuse(self, consent: Consent) -> None:
        """Undo a consent that was given for another account than the one asked for."""
        async with (
            self._database.exclusively(of_account(consent.google_sub)),
            self._database.transaction() as connection,
        ):
            await connection.execute(_SQL["lock_account"], consent.google_sub)
            await self._endings.refuse(
                connection, consent.google_sub, consent.any_token, origin="account_mismatch"
            )

    # What they share.

    async def _lock(self, connection: Connection, user_id: str, google_sub: str) -> None:
        await connection.execute(_SQL["lock_user"], user_id)
        await connection.execute(_SQL["lock_account"], google_sub)

    async def _grant_row(self, connection: Connection, consent: Consent) -> asyncpg.Record | None:
        return await connection.fetchrow(
            _SQL["find_by_account"], consent.user_id, consent.google_sub
        )


def _live(row: asyncpg.Record | None, consent: Consent) -> Grant | None:
    """The grant of that row, if it works for the consent's client."""
    if row is None or row["sealed_refresh_token"] is None:
        return None
    grant = grant_from(row)
    works = grant.status is GrantStatus.ACTIVE and grant.client_id == consent.client_id
    return grant if works else None


def _added_to(live: Grant, consent: Consent) -> Consent:
    """Both have one refresh token, that can fetch all of it; the access token can't."""
    scopes = tuple(dict.fromkeys((*live.scopes, *consent.scopes)))
    return replace(consent, scopes=scopes, refresh_token=None, access_token=None)


def _owner_of(pending: PendingConsent) -> tuple[UUID, str, str]:
    return pending.link_id, pending.caller, pending.user_id


def _columns(sealed: Sealed | None) -> tuple[bytes | None, str | None]:
    return (None, None) if sealed is None else (sealed.ciphertext, sealed.key_id)


def _code_hash(link_id: UUID, caller: str, code: Secret) -> bytes:
    """256 random bits need no salt; link and caller bind the hash to its row."""
    return hashlib.sha256(json.dumps([str(link_id), caller, code.reveal()]).encode()).digest()
