"""Refreshes access tokens at Google: once for all who wait, at whichever replica.

Decides what each failure of Google's means for the grant: only `invalid_grant`, from the client
that the grant belongs to, ever changes it. No database connection is held while Google is asked.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    ScopeRefused,
)
from broker.google.http import DEADLINE
from broker.google.oauth import GoogleOAuth, TokenAnswer
from broker.google.scopes import IDENTITY_SCOPES, is_within, missing
from broker.grants.leases import Busy, Lease, RefreshLeases
from broker.grants.model import AccessToken, Grant, scope_set
from broker.grants.rows import StoredGrant
from broker.grants.sealing import UnsealingError
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.current import CurrentClient
from broker.telemetry.audit import AuditTrail
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics
from broker.tokens.backoff import Backoff
from broker.tokens.breaker import CircuitBreaker
from broker.tokens.unsaved import UnsavedRefreshes
from broker.tokens.wakeups import Wakeups
from broker.web.problems import (
    Problem,
    client_misconfigured,
    google_unavailable,
    reauthorization_required,
    scope_not_granted,
    storage_unavailable,
)

logger = logging.getLogger(__name__)

_CLIENT_PAUSE = timedelta(seconds=5)
"""How long a client that Google refuses is left alone, unless it changes before."""

ASKING = DEADLINE + timedelta(seconds=2)
"""How long asking Google may take in all, with discovery and a second try with a new client."""

LEASE = ASKING + timedelta(seconds=3)
"""Outlives the asking and the writing down; after it, another replica takes over."""

_RECHECK_SECONDS = 0.5
"""How long a notice is waited for before the table is looked at."""


class LookAgain(Exception):  # noqa: N818  (an instruction)
    """The grant, or what is held for it, changed meanwhile: whoever waits must look at it again."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A fresh token, and the grant as it was when it was stored."""

    grant: Grant
    token: AccessToken


RefreshResult = Refreshed | Problem
_Key = tuple[UUID, str]


class Refresher:
    """One refresh at a time, among all replicas, for each grant and scope set."""

    def __init__(  # noqa: PLR0913  (wired once, by keyword)
        self,
        *,
        grants: GrantStore,
        leases: RefreshLeases,
        google: GoogleOAuth,
        client: CurrentClient,
        audit: AuditTrail,
        metrics: Metrics,
        clock: Clock,
        wakeups: Wakeups,
        unsaved: UnsavedRefreshes,
        forget: Callable[[str], None],
    ) -> None:
        """`forget` is told whose held tokens may no longer be handed out."""
        self._grants = grants
        self._leases = leases
        self._google = google
        self._client = client
        self._audit = audit
        self._wakeups = wakeups
        self._unsaved = unsaved
        self._forget = forget
        self._refreshes = metrics.token_refreshes
        self._clock = clock
        self._backoff = Backoff(clock)
        self._breaker = CircuitBreaker(clock)
        self._running: dict[_Key, asyncio.Task[RefreshResult]] = {}
        self._refused_client: OAuthClient | None = None
        self._refused_until: datetime = clock.now()

    async def refresh(self, stored: StoredGrant, scopes: tuple[str, ...]) -> RefreshResult:
        """A token narrowed to `scopes`, or the problem to answer with.

        Joins a refresh that is under way here for the same grant and scopes; cancelling one who
        waits cancels nobody else. Raises `LookAgain`, also when another replica's refresh ended.
        """
        key = (stored.grant.id, scope_set(scopes))
        task = self._running.get(key)
        if task is None:
            pause = self._pause(key)
            if pause is not None:
                return pause
            task = asyncio.create_task(self._in_turn(key, stored, scopes))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: _Key, task: asyncio.Task[RefreshResult]) -> None:
        del self._running[key]
        if not task.cancelled():
            # Looked at even if nobody waits any more.
            task.exception()

    async def aclose(self) -> None:
        """Let refreshes under way end, for a rotated refresh token must not be lost."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=10)

    def _pause(self, key: _Key) -> Problem | None:
        """The answer while Google, or our client, is known to be in trouble."""
        if self._refused_client is not None and self._refused_client is self._client.client:
            left = (self._refused_until - self._clock.now()).total_seconds()
            if left > 0:
                return client_misconfigured(retry_after=int(left) + 1)
        pause = self._backoff.pause(key)
        if pause is None and (seconds := self._breaker.seconds_left()):
            return google_unavailable(retry_after=math.ceil(seconds))
        return pause

    def _pause_left(self, key: _Key) -> timedelta:
        refused = self._refused_until - self._clock.now()
        return max(self._backoff.until(key), refused, timedelta(0))

    # Among replicas.

    async def _in_turn(
        self, key: _Key, stored: StoredGrant, scopes: tuple[str, ...]
    ) -> RefreshResult:
        """Ask Google if it is this replica's turn; else wait for the one whose turn it is."""
        try:
            turn = await self._leases.take(*key, lasting=LEASE)
        except StorageUnavailable:
            # No replica can take turns now, nor can a grant be revoked: each helps itself.
            return await self._refresh(key, stored, scopes, None)
        if isinstance(turn, Lease):
            return await self._as_holder(turn, key, stored, scopes)
        if turn.trouble is not None:
            return _told_by_another(turn, scopes)
        await self._wakeups.wait(
            stored.grant.id,
            seconds=min(max(turn.time_left.total_seconds(), 0.01), _RECHECK_SECONDS),
        )
        raise LookAgain

    async def _as_holder(
        self, lease: Lease, key: _Key, stored: StoredGrant, scopes: tuple[str, ...]
    ) -> RefreshResult:
        """Somebody may have refreshed between our look at the grant and our turn: look again."""
        _, held_under = key
        seen = stored.sealed_access_tokens.get(held_under)
        for now in await self._grants.find(stored.grant.user_id):
            if now.grant.id == stored.grant.id and now.grant.version == stored.grant.version:
                newer = now.sealed_access_tokens.get(held_under)
                if newer is not None and (seen is None or newer.expires_at > seen.expires_at):
                    break
                return await self._refresh(key, stored, scopes, lease)
        await self._leases.end(lease)
        raise LookAgain

    async def _refresh(
        self, key: _Key, stored: StoredGrant, scopes: tuple[str, ...], lease: Lease | None
    ) -> RefreshResult:
        try:
            result = await self._ask_and_store(key, stored, scopes, lease)
        except LookAgain:
            await self._end(lease)
            raise
        if isinstance(result, Problem):
            trouble = result.code if result.code in _SHARED_TROUBLES else None
            await self._end(lease, pause=self._pause_left(key), trouble=trouble)
        return result

    async def _end(
        self,
        lease: Lease | None,
        *,
        pause: timedelta = timedelta(0),
        trouble: str | None = None,
    ) -> None:
        """Let the other replicas know how it went; they find out by the lease's end otherwise."""
        if lease is None:
            return
        try:
            await self._leases.end(lease, pause=pause if trouble else timedelta(0), trouble=trouble)
        except StorageUnavailable as error:
            logger.debug("a lease runs out by itself", extra={"reason": str(error)})

    # At Google.

    async def _ask_and_store(
        self, key: _Key, stored: StoredGrant, scopes: tuple[str, ...], lease: Lease | None
    ) -> RefreshResult:
        grant = stored.grant
        try:
            newer = self._unsaved.refresh_token(grant.id)
            refresh_token = newer or self._grants.open_refresh_token(stored)
        except UnsealingError:
            logger.exception(
                "a refresh token does not open; is a key missing from SECRET_KEY?",
                extra={"user": cut_user_id(grant.user_id)},
            )
            return storage_unavailable(retry_after=30)
        try:
            answer = await self._ask(refresh_token, scopes)
        except GoogleError as error:
            if isinstance(error, GoogleUnavailable):
                self._breaker.failed()
            else:
                self._breaker.succeeded()
            return await self._failed(key, grant, scopes, error)
        self._breaker.succeeded()
        self._backoff.succeeded(key)
        return await self._succeeded(key, grant, scopes, answer, lease)

    async def _ask(self, refresh_token: Secret, scopes: tuple[str, ...]) -> TokenAnswer:
        """Ask Google; if it refuses the client, read the client anew and ask once more."""
        try:
            async with asyncio.timeout(ASKING.total_seconds()):
                client = self._client.client
                try:
                    return await self._google.refresh(
                        client=client, refresh_token=refresh_token, scopes=scopes
                    )
                except ClientRefused:
                    if not await self._client.reread(client):
                        raise
                return await self._google.refresh(
                    client=self._client.client, refresh_token=refresh_token, scopes=scopes
                )
        except TimeoutError as error:
            raise GoogleUnavailable("timeout") from error

    async def _succeeded(
        self,
        key: _Key,
        grant: Grant,
        scopes: tuple[str, ...],
        answer: TokenAnswer,
        lease: Lease | None,
    ) -> RefreshResult:
        carried = answer.scopes if answer.scopes is not None else scopes
        if not is_within(carried, (*scopes, *IDENTITY_SCOPES)):
            # A check of the answer, for narrowing is something that Google does not promise.
            self._note(grant, scopes, "too_wide")
            logger.error("Google answered with a wider token than asked for; it is not handed out")
            return self._backoff.failed(key, _too_wide)
        token = AccessToken(answer.access_token, carried, self._clock.now(), answer.expires_at)
        self._refused_client = None
        _, held_under = key
        try:
            current = await self._grants.save_refresh(
                grant,
                held_under=held_under,
                access_token=token,
                refresh_token=answer.refresh_token,
                lease=lease,
            )
        except StorageUnavailable:
            self._unsaved.keep(grant, held_under, token, answer.refresh_token)
            self._note(grant, scopes, "refreshed_unsaved")
            return Refreshed(grant, token)
        if current is None:
            self._note(grant, scopes, "superseded")
            raise LookAgain
        self._note(current, scopes, "refreshed")
        return Refreshed(current, token)

    async def _failed(
        self, key: _Key, grant: Grant, scopes: tuple[str, ...], error: GoogleError
    ) -> RefreshResult:
        if isinstance(error, (ClientRefused, GrantRefused)):
            if grant.client_id != self._client.client.client_id:
                return self._foreign_client(key, grant, scopes)
            if isinstance(error, GrantRefused):
                return await self._grant_refused(grant, scopes, error)
            return self._client_refused(grant, scopes, error)
        if isinstance(error, ScopeRefused):
            self._note(grant, scopes, "scope_refused")
            return self._backoff.failed(key, lambda _seconds: scope_not_granted(scopes))
        self._note(grant, scopes, "unavailable")
        logger.warning("a refresh failed; the grant is kept", extra={"reason": error.reason})
        retry_after = error.retry_after if isinstance(error, GoogleUnavailable) else None
        return self._backoff.failed(key, google_unavailable, retry_after=retry_after)

    def _foreign_client(self, key: _Key, grant: Grant, scopes: tuple[str, ...]) -> Problem:
        """The refresh token belongs to another client than the one configured now.

        That is an operator who changed the client, never the user's doing, even where Google
        calls it `invalid_grant`; the other grants go on.
        """
        self._note(grant, scopes, "foreign_client")
        logger.error(
            "a grant belongs to another OAuth client than the one configured",
            extra={"user": cut_user_id(grant.user_id)},
        )
        return self._backoff.failed(key, client_misconfigured)

    async def _grant_refused(
        self, grant: Grant, scopes: tuple[str, ...], error: GrantRefused
    ) -> Problem:
        if not await self._grants.mark_reauthorization_required(grant, error.reason):
            raise LookAgain
        # Tokens that were fetched before have most likely died with the grant.
        self._forget(grant.user_id)
        self._note(grant, scopes, "grant_refused")
        logger.info(
            "Google no longer honours a grant",
            extra={"user": cut_user_id(grant.user_id), "reason": error.reason},
        )
        return reauthorization_required(error.reason)

    def _client_refused(self, grant: Grant, scopes: tuple[str, ...], error: GoogleError) -> Problem:
        self._refused_client = self._client.client
        self._refused_until = self._clock.now() + _CLIENT_PAUSE
        self._note(grant, scopes, "client_refused")
        logger.error(
            "Google refuses the OAuth client: an operator has to mend its id or secret",
            extra={"reason": error.reason, "version": self._client.client.version},
        )
        return client_misconfigured(retry_after=int(_CLIENT_PAUSE.total_seconds()))

    def _note(self, grant: Grant, scopes: tuple[str, ...], outcome: str) -> None:
        self._refreshes.labels(outcome).inc()
        self._audit.record(
            action="token_refreshed",
            outcome=outcome,
            user_id=grant.user_id,
            account_sub=grant.google_sub,
            scopes=scopes,
        )


def _too_wide(seconds: int) -> Problem:
    return google_unavailable(seconds, "Google answered with a wider token than asked for.")


_SHARED_TROUBLES: Mapping[str, Callable[[int, tuple[str, ...]], Problem]] = {
    "google_unavailable": lambda seconds, _scopes: google_unavailable(seconds),
    "client_misconfigured": lambda seconds, _scopes: client_misconfigured(seconds),
    "scope_not_granted": lambda _seconds, scopes: scope_not_granted(scopes),
}


def _told_by_another(busy: Busy, scopes: tuple[str, ...]) -> Problem:
    """What the last holder met, for everybody until the pause is over."""
    answer = _SHARED_TROUBLES.get(busy.trouble or "", _SHARED_TROUBLES["google_unavailable"])
    return answer(max(1, math.ceil(busy.time_left.total_seconds())), scopes)


def lacking(asked: tuple[str, ...] | None, token: AccessToken) -> tuple[str, ...]:
    """Which of the scopes that were asked for by name the token does not carry after all."""
    return missing(asked, token.scopes) if asked is not None else ()
