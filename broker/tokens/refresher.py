"""Refreshes access tokens at Google: once for all who wait, whoever of them gives up.

Decides what each failure of Google's means for the grant: only `invalid_grant`, from the client
that the grant belongs to, ever changes it. No database connection is held while Google is asked.
"""

import asyncio
import logging
from collections.abc import Callable
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
from broker.google.oauth import GoogleOAuth, TokenAnswer
from broker.google.scopes import IDENTITY_SCOPES, is_within, missing
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


class GrantChangedError(Exception):
    """The grant changed while Google was asked; whoever waits must look at it again."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A fresh token, and the grant as it was when it was stored."""

    grant: Grant
    token: AccessToken


RefreshResult = Refreshed | Problem
_Key = tuple[UUID, str]


class Refresher:
    """One refresh at a time for each grant and scope set."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        google: GoogleOAuth,
        client: CurrentClient,
        audit: AuditTrail,
        metrics: Metrics,
        clock: Clock,
        forget: Callable[[str], None],
    ) -> None:
        """`forget` is told whose held tokens may no longer be handed out."""
        self._grants = grants
        self._google = google
        self._client = client
        self._audit = audit
        self._forget = forget
        self._refreshes = metrics.token_refreshes
        self._clock = clock
        self._backoff = Backoff(clock)
        self._running: dict[_Key, asyncio.Task[RefreshResult]] = {}
        self._refused_client: OAuthClient | None = None
        self._refused_until: datetime = clock.now()

    async def refresh(self, stored: StoredGrant, scopes: tuple[str, ...]) -> RefreshResult:
        """A token narrowed to `scopes`, or the problem to answer with.

        Joins a refresh that is under way for the same grant and scopes; cancelling one who waits
        cancels nobody else. Raises `GrantChangedError`.
        """
        key = (stored.grant.id, scope_set(scopes))
        task = self._running.get(key)
        if task is None:
            pause = self._pause(key)
            if pause is not None:
                return pause
            task = asyncio.create_task(self._refresh(key, stored, scopes))
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
        return self._backoff.pause(key)

    async def _refresh(
        self, key: _Key, stored: StoredGrant, scopes: tuple[str, ...]
    ) -> RefreshResult:
        grant = stored.grant
        try:
            refresh_token = self._grants.open_refresh_token(stored)
        except UnsealingError:
            logger.exception(
                "a refresh token does not open; is a key missing from SECRET_KEY?",
                extra={"user": cut_user_id(grant.user_id)},
            )
            return storage_unavailable(retry_after=30)
        try:
            client, answer = await self._ask(refresh_token, scopes)
        except GoogleError as error:
            return await self._failed(key, grant, scopes, error)
        self._backoff.succeeded(key)
        return await self._succeeded(grant, scopes, client, answer)

    async def _ask(
        self, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> tuple[OAuthClient, TokenAnswer]:
        """Ask Google; if it refuses the client, read the client anew and ask once more."""
        client = self._client.client
        try:
            answer = await self._google.refresh(
                client=client, refresh_token=refresh_token, scopes=scopes
            )
        except ClientRefused:
            if not await self._client.reread(client):
                raise
            client = self._client.client
            answer = await self._google.refresh(
                client=client, refresh_token=refresh_token, scopes=scopes
            )
        return client, answer

    async def _succeeded(
        self, grant: Grant, scopes: tuple[str, ...], client: OAuthClient, answer: TokenAnswer
    ) -> RefreshResult:
        carried = answer.scopes if answer.scopes is not None else scopes
        if not is_within(carried, (*scopes, *IDENTITY_SCOPES)):
            # A check of the answer, for narrowing is something that Google does not promise.
            self._note(grant, scopes, "too_wide")
            logger.error("Google answered with a wider token than asked for; it is not handed out")
            return google_unavailable(30, "Google answered with a wider token than asked for.")
        token = AccessToken(answer.access_token, carried, self._clock.now(), answer.expires_at)
        self._refused_client = None
        try:
            current = await self._grants.save_refresh(
                grant,
                held_under=scope_set(scopes),
                access_token=token,
                refresh_token=answer.refresh_token,
            )
        except StorageUnavailable:
            if answer.refresh_token is not None:
                logger.warning("a new refresh token could not be stored; the old one is kept")
            self._note(grant, scopes, "refreshed_unsaved")
            raise
        if current is None:
            self._note(grant, scopes, "superseded")
            raise GrantChangedError
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
            raise GrantChangedError
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


def lacking(asked: tuple[str, ...] | None, token: AccessToken) -> tuple[str, ...]:
    """Which of the scopes that were asked for by name the token does not carry after all."""
    return missing(asked, token.scopes) if asked is not None else ()
