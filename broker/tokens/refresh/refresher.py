"""Refreshes access tokens at Google: one at a time for each grant, among all replicas and callers.

Decides what each failure of Google's means for the grant: only `invalid_grant`, from the client
that the grant belongs to, ever changes it. No database connection is held while Google is asked.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.crypto.sealing import UnsealingError
from broker.database.database import StorageBusy, StorageUnavailable
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    ScopeRefused,
)
from broker.google.http import DEADLINE
from broker.google.oauth import GoogleOAuth, TokenAnswer
from broker.google.scopes import IDENTITY_SCOPES, is_within
from broker.grants.model import AccessToken, Grant, scope_set
from broker.grants.refresh_lease import Busy, Lease, RefreshLeases
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.current import CurrentClient
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import HeldTokens
from broker.tokens.refresh.circuit_breaker import CircuitBreaker
from broker.tokens.refresh.pauses import Backoff
from broker.tokens.refresh.wakeups import Wakeups
from broker.tokens.refresh.write_behind import UnsavedRefreshes
from broker.web.problems import (
    Problem,
    client_misconfigured,
    google_unavailable,
    reauthorization_required,
    scope_not_granted,
    storage_unavailable,
)

logger = logging.getLogger(__name__)

_WHOLE_CLIENT = frozenset({"invalid_client", "deleted_client", "disabled_client"})
"""Refusals that every grant would meet; others may be about one account."""

_CLIENT_PAUSE = timedelta(seconds=5)
"""How long a client that Google refuses is left alone, unless it changes before."""

ASKING = DEADLINE + timedelta(seconds=2)
"""How long asking Google may take in all, with discovery and a second try with a new client."""

LEASE = ASKING + timedelta(seconds=3)
"""Outlives the asking and the writing down; after it, another replica takes over."""

AT_ONCE = 224
"""Refreshes at Google at a time: more than the shares of two callers, and of those done ahead;
consents and revocations need connections, too.
"""

_SETTLING_SECONDS = 5.0
"""How long after an outage of storage other replicas may still have to write what Google sent them:
until then, a refresh token that is refused may be one that was replaced meanwhile."""

_RECHECK_SECONDS = 0.5
"""How long a notice is waited for before the table is looked at."""


class LookAgain(Exception):  # noqa: N818  (an instruction)
    """The grant, or what is held for it, changed meanwhile: whoever waits must look at it again."""


@dataclass(frozen=True, slots=True)
class Behalf:
    """For whom a refresh is begun; for nobody in particular when it is done ahead."""

    caller: str | None = None
    request_id: str | None = None


RefreshResult = HeldToken | Problem
_Key = tuple[UUID, str]


@dataclass(frozen=True, slots=True)
class _Refresh:
    """What is refreshed, and for whom."""

    stored: StoredGrant
    scopes: tuple[str, ...]
    behalf: Behalf

    @property
    def grant(self) -> Grant:
        return self.stored.grant


class Refreshes(Protocol):
    """The `Refresher`, or who stands in front of it."""

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        """A token narrowed to `scopes`, or the problem to answer with. Raises `LookAgain`."""
        ...


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
        held: HeldTokens,
    ) -> None:
        self._grants = grants
        self._leases = leases
        self._google = google
        self._client = client
        self._audit = audit
        self._wakeups = wakeups
        self._unsaved = unsaved
        self._held = held
        self._refreshes = metrics.token_refreshes
        self._clock = clock
        self._backoff = Backoff(clock)
        self._breaker = CircuitBreaker(clock)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[RefreshResult]] = set()
        self._refused_client: OAuthClient | None = None
        self._refused_until: datetime = clock.now()

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        """A token narrowed to `scopes`, which is held from then on, or the problem to answer with.

        Goes on if who waits is cancelled. Raises `LookAgain`, also when somebody else's refresh
        ended: all take turns by the lease, at this replica too. Were it joined, whoever joined
        would wait for connections of another's share.
        """
        key = (stored.grant.id, scope_set(scopes))
        pause = self._pause(key)
        if pause is not None:
            return pause
        task = asyncio.create_task(self._watched(key, stored, scopes, behalf))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    @property
    def in_flight(self) -> int:
        """Refreshes that have begun and not ended: at Google, waiting for their turn, or saving."""
        return len(self._running)

    def _ended(self, task: asyncio.Task[RefreshResult]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Looked at even if nobody waits any more.
            task.exception()

    async def aclose(self) -> None:
        """Let refreshes under way end, for a rotated refresh token must not be lost."""
        if self._running:
            await asyncio.wait(self._running, timeout=10)

    def _pause(self, key: _Key) -> Problem | None:
        """The answer while Google, or our client, is known to be in trouble."""
        if self._refused_client is not None and self._refused_client is self._client.client:
            left = (self._refused_until - self._clock.now()).total_seconds()
            if left > 0:
                return client_misconfigured(retry_after=int(left) + 1)
        grant_id, _ = key
        pause = self._backoff.pause(grant_id) or self._backoff.pause(key)
        if pause is not None:
            return pause
        if not self._backoff.is_in_trouble(grant_id):
            return google_unavailable(retry_after=1) if self._breaker.refuses_probes else None
        if seconds := self._breaker.seconds_left():
            return google_unavailable(retry_after=math.ceil(seconds))
        return None

    def _pause_left(self, key: _Key) -> timedelta:
        grant_id, _ = key
        left = max(self._backoff.until(grant_id), self._backoff.until(key))
        if self._refused_client is self._client.client:
            left = max(left, self._refused_until - self._clock.now())
        return left

    async def _watched(
        self, key: _Key, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        """Hold what was fetched even if nobody waits any more, unless the grant changed."""
        user_id = stored.grant.user_id
        watch = self._held.watch(user_id)
        try:
            result = await self._in_turn(key, _Refresh(stored, scopes, behalf))
            if isinstance(result, HeldToken):
                _, held_under = key
                self._held.keep(user_id, held_under, result, watch)
            return result
        finally:
            self._held.unwatch(user_id, watch)

    # Among replicas.

    async def _in_turn(self, key: _Key, refresh: _Refresh) -> RefreshResult:
        """Ask Google if it is this replica's turn; else wait for the one whose turn it is."""
        try:
            turn = await self._leases.take(*key, lasting=LEASE)
        except StorageBusy:
            # The other replicas do take turns: asking Google without one would be one too many.
            raise
        except StorageUnavailable:
            # No replica can take turns now, nor can a grant be revoked: each helps itself.
            return await self._refresh(key, refresh, None)
        if isinstance(turn, Lease):
            return await self._as_holder(turn, key, refresh)
        if turn.trouble is not None:
            return _told_by_another(turn, refresh.scopes)
        await self._wakeups.wait(
            refresh.grant.id,
            seconds=min(max(turn.time_left.total_seconds(), 0.01), _RECHECK_SECONDS),
        )
        raise LookAgain

    async def _as_holder(self, lease: Lease, key: _Key, refresh: _Refresh) -> RefreshResult:
        """Somebody may have refreshed between our look at the grant and our turn: look again."""
        _, held_under = key
        seen = refresh.stored.sealed_access_tokens.get(held_under)
        try:
            grants = await self._grants.find(refresh.grant.user_id)
        except StorageUnavailable:
            # One lost connection must not make everybody wait until the lease has run out.
            await self._end(lease)
            raise
        for now in grants:
            if _is_same(now.grant, refresh.grant):
                newer = now.sealed_access_tokens.get(held_under)
                if newer is not None and (seen is None or newer.expires_at > seen.expires_at):
                    break
                return await self._refresh(key, refresh, lease)
        await self._leases.end(lease)
        raise LookAgain

    async def _refresh(self, key: _Key, refresh: _Refresh, lease: Lease | None) -> RefreshResult:
        try:
            result = await self._ask_and_store(key, refresh, lease)
        except (LookAgain, StorageUnavailable):
            # Nobody is to wait until the lease has run out: Google has answered.
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
        self, key: _Key, refresh: _Refresh, lease: Lease | None
    ) -> RefreshResult:
        try:
            newer = self._unsaved.refresh_token(refresh.grant)
            refresh_token = newer or self._grants.open_refresh_token(refresh.stored)
        except UnsealingError:
            logger.exception(
                "a refresh token does not open; is a key missing from SECRET_KEY?",
                extra={"user": cut_user_id(refresh.grant.user_id)},
            )
            return storage_unavailable(retry_after=30)
        client, answer = await self._ask(refresh.grant.id, refresh_token, refresh.scopes)
        if isinstance(answer, GoogleError):
            return await self._failed(key, refresh, client, answer, lease)
        self._backoff.succeeded(key)
        return await self._succeeded(key, refresh, answer, lease)

    async def _ask(
        self, grant_id: UUID, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> tuple[OAuthClient, TokenAnswer | GoogleError]:
        """What Google says, and to which client: if it refuses one that has just been replaced, it
        is asked once more.
        """
        until = asyncio.get_running_loop().time() + ASKING.total_seconds()
        is_probe = not self._backoff.is_in_trouble(grant_id)
        try:
            async with asyncio.timeout_at(until) as waiting, self._slots:
                if is_probe and not await self._breaker.may_probe():
                    return self._client.client, GoogleUnavailable("circuit_open")
                waiting.reschedule(None)
                with self._breaker.probing(grant_id) if is_probe else nullcontext():
                    client, answer = await self._ask_until(until, refresh_token, scopes)
                    self._learn(grant_id, answer)
                    return client, answer
        except TimeoutError:
            # It was never our turn: this says nothing of Google.
            return self._client.client, GoogleUnavailable("busy")

    async def _ask_until(
        self, until: float, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> tuple[OAuthClient, TokenAnswer | GoogleError]:
        client = self._client.client
        try:
            async with asyncio.timeout_at(until):
                answer = await self._ask_as(client, refresh_token, scopes)
                if isinstance(answer, ClientRefused) and await self._client.reread(client):
                    client = self._client.client
                    answer = await self._ask_as(client, refresh_token, scopes)
                return client, answer
        except TimeoutError:
            return client, GoogleUnavailable("timeout")

    def _learn(self, grant_id: UUID, answer: TokenAnswer | GoogleError) -> None:
        if not isinstance(answer, GoogleUnavailable):
            self._breaker.succeeded()
            self._backoff.succeeded(grant_id)
        elif answer.is_general:
            self._breaker.failed(grant_id)

    async def _ask_as(
        self, client: OAuthClient, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> TokenAnswer | GoogleError:
        try:
            return await self._google.refresh(
                client=client, refresh_token=refresh_token, scopes=scopes
            )
        except GoogleError as error:
            return error

    async def _succeeded(
        self, key: _Key, refresh: _Refresh, answer: TokenAnswer, lease: Lease | None
    ) -> RefreshResult:
        carried = answer.scopes if answer.scopes is not None else refresh.scopes
        if not is_within(carried, (*refresh.scopes, *IDENTITY_SCOPES)):
            # A check of the answer, for narrowing is something that Google does not promise.
            self._note(refresh, "too_wide")
            logger.error("Google answered with a wider token than asked for; it is not handed out")
            return self._backoff.failed(key, _too_wide)
        token = AccessToken(answer.access_token, carried, self._clock.now(), answer.expires_at)
        self._refused_client = None
        _, held_under = key
        try:
            current = await self._grants.save_refresh(
                refresh.grant,
                held_under=held_under,
                access_token=token,
                refresh_token=answer.refresh_token,
                lease=lease,
            )
        except StorageUnavailable:
            self._unsaved.keep(refresh.grant, held_under, token, answer.refresh_token)
            self._note(refresh, "refreshed_unsaved")
            return HeldToken(refresh.grant, token)
        if current is None:
            self._note(refresh, "superseded")
            if answer.refresh_token is not None:
                # Whoever withdrew the grant had only the old one to tell Google.
                await self._unsaved.give_up(refresh.grant, answer.refresh_token)
            raise LookAgain
        self._note(refresh, "refreshed")
        return HeldToken(current, token)

    async def _failed(
        self,
        key: _Key,
        refresh: _Refresh,
        client: OAuthClient,
        error: GoogleError,
        lease: Lease | None,
    ) -> Problem:
        if isinstance(error, (ClientRefused, GrantRefused)):
            if refresh.grant.client_id != client.client_id:
                return self._foreign_client(key, refresh)
            if isinstance(error, GrantRefused):
                return await self._grant_refused(key, refresh, error, lease)
            return self._client_refused(key, refresh, client, error)
        if isinstance(error, ScopeRefused):
            self._note(refresh, "scope_refused")
            return self._backoff.failed(key, lambda _seconds: scope_not_granted(refresh.scopes))
        self._note(refresh, "unavailable")
        logger.warning("a refresh failed; the grant is kept", extra={"reason": error.reason})
        if isinstance(error, GoogleUnavailable):
            if not error.was_asked:
                return google_unavailable(retry_after=1)
            return self._backoff.failed(key[0], google_unavailable, retry_after=error.retry_after)
        detail = f"Google refuses this refresh ({error.reason}); the grant is kept."
        return self._backoff.failed(key, lambda seconds: google_unavailable(seconds, detail))

    def _foreign_client(self, key: _Key, refresh: _Refresh) -> Problem:
        """The refresh token belongs to another client than the one that asked.

        That is an operator who changed the client, never the user's doing, even where Google
        calls it `invalid_grant`; the other grants go on.
        """
        self._note(refresh, "foreign_client")
        logger.error(
            "a grant belongs to another OAuth client than the one configured",
            extra={"user": cut_user_id(refresh.grant.user_id)},
        )
        return self._backoff.failed(key, client_misconfigured)

    async def _grant_refused(
        self, key: _Key, refresh: _Refresh, error: GrantRefused, lease: Lease | None
    ) -> Problem:
        await self._let_others_end(key, lease)
        if self._leases.were_away_within(_SETTLING_SECONDS):
            self._note(refresh, "unsettled")
            return self._backoff.failed(key, storage_unavailable)
        if not await self._grants.mark_reauthorization_required(refresh.grant, error.reason):
            raise LookAgain
        # Tokens that were fetched before have most likely died with the grant.
        self._held.forget(refresh.grant.user_id)
        self._note(refresh, "grant_refused")
        logger.info(
            "Google no longer honours a grant",
            extra={"user": cut_user_id(refresh.grant.user_id), "reason": error.reason},
        )
        return reauthorization_required(error.reason)

    async def _let_others_end(self, key: _Key, lease: Lease | None) -> None:
        """What Google refused may have been replaced by a refresh for other scopes that is not
        written yet: once it is, this refusal says nothing of the grant.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LEASE.total_seconds()
        while await self._leases.are_others_out(*key) and loop.time() < until:
            # Or two that were both refused would wait for each other.
            await self._end(lease)
            await self._wakeups.wait(key[0], seconds=_RECHECK_SECONDS)

    def _client_refused(
        self, key: _Key, refresh: _Refresh, client: OAuthClient, error: ClientRefused
    ) -> Problem:
        self._note(refresh, "client_refused")
        logger.error(
            "Google refuses the OAuth client: an operator has to mend its id or secret",
            extra={"reason": error.reason, "version": client.version},
        )
        if error.reason in _WHOLE_CLIENT:
            self._refused_client = client
            self._refused_until = self._clock.now() + _CLIENT_PAUSE
            return client_misconfigured(retry_after=int(_CLIENT_PAUSE.total_seconds()))
        # About this client and this account, such as `org_internal`: the other grants go on.
        return self._backoff.failed(key, client_misconfigured)

    def _note(self, refresh: _Refresh, outcome: str) -> None:
        self._refreshes.labels(outcome).inc()
        self._audit.record(
            action="token_refreshed",
            outcome=outcome,
            caller=refresh.behalf.caller,
            user_id=refresh.grant.user_id,
            account_sub=refresh.grant.google_sub,
            scopes=refresh.scopes,
            request_id=refresh.behalf.request_id,
        )


def _too_wide(seconds: int) -> Problem:
    return google_unavailable(seconds, "Google answered with a wider token than asked for.")


_SHARED_TROUBLES: Mapping[str, Callable[[int, tuple[str, ...]], Problem]] = {
    "google_unavailable": lambda seconds, _scopes: google_unavailable(seconds),
    "client_misconfigured": lambda seconds, _scopes: client_misconfigured(seconds),
    "scope_not_granted": lambda _seconds, scopes: scope_not_granted(scopes),
    "storage_unavailable": lambda seconds, _scopes: storage_unavailable(seconds),
}


def _is_same(now: Grant, then: Grant) -> bool:
    """Whether it has neither changed nor got another refresh token."""
    return (now.id, now.version, now.refresh_token_version) == (
        then.id,
        then.version,
        then.refresh_token_version,
    )


def _told_by_another(busy: Busy, scopes: tuple[str, ...]) -> Problem:
    """What the last holder met, for everybody until the pause is over."""
    answer = _SHARED_TROUBLES.get(busy.trouble or "", _SHARED_TROUBLES["google_unavailable"])
    return answer(max(1, math.ceil(busy.time_left.total_seconds())), scopes)
