"""One refresh at Google, and the effect of its answer on the grant.

Only `invalid_grant`, to the OAuth client that the grant belongs to, ever changes a grant. No
database connection is in use while Google is called.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.crypto.sealing import UnsealingError
from broker.database.database import StorageUnavailable
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    ScopeRefused,
)
from broker.google.oauth import TokenResponse
from broker.grants.model import AccessToken, Grant, to_scope_set
from broker.grants.refresh_lease import Lease
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.scopes import IDENTITY_SCOPES, is_within
from broker.secret_sources.source import OAuthClient
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.refresh.google_calls import RefreshCalls, RefreshKey
from broker.tokens.refresh.lease_waits import ReplicaLeases
from broker.tokens.refresh.write_behind import WriteBehind
from broker.tokens.results import (
    READ_AGAIN,
    Denial,
    NotGranted,
    Outage,
    ReadAgain,
    RefreshResult,
    Unavailable,
    google_unavailable,
    storage_unavailable,
)

logger = logging.getLogger(__name__)

_WHOLE_CLIENT = frozenset({"invalid_client", "deleted_client", "disabled_client"})
"""Refusals that every grant would get; others may concern one account."""

_UNREADABLE_RETRY = timedelta(seconds=30)
"""A refresh token that does not open needs the operator."""


@dataclass(frozen=True, slots=True)
class Requester:
    """The cause of a refresh, for the audit trail; empty for a proactive refresh."""

    caller: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """One refresh: a grant, narrowed to scopes, and its requester."""

    stored: StoredGrant
    scopes: tuple[str, ...]
    requester: Requester

    @property
    def grant(self) -> Grant:
        return self.stored.grant

    @property
    def scope_set(self) -> str:
        return to_scope_set(self.scopes)

    @property
    def key(self) -> RefreshKey:
        """The unit of leases and back-off."""
        return self.grant.id, self.scope_set


class RefreshRecords:
    """Counts and audits each refresh."""

    def __init__(self, metrics: Metrics, audit: AuditTrail) -> None:
        self._refreshes = metrics.token_refreshes
        self._audit = audit

    def record(self, refresh: Refresh, outcome: str) -> None:
        """Record how a refresh ended."""
        self._refreshes.labels(outcome).inc()
        self._audit.record(
            action="token_refreshed",
            outcome=outcome,
            caller=refresh.requester.caller,
            user_id=refresh.grant.user_id,
            account_sub=refresh.grant.google_sub,
            scopes=refresh.scopes,
            request_id=refresh.requester.request_id,
        )


class GoogleRefresh:
    """Refreshes a grant at Google and stores the result."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        calls: RefreshCalls,
        leases: ReplicaLeases,
        write_behind: WriteBehind,
        cache: TokenCache,
        records: RefreshRecords,
        clock: Clock,
    ) -> None:
        self._grants = grants
        self._calls = calls
        self._leases = leases
        self._write_behind = write_behind
        self._cache = cache
        self._records = records
        self._clock = clock

    async def run(self, refresh: Refresh, lease: Lease | None) -> RefreshResult:
        """Return the new token, or why there is none. Without a lease PostgreSQL is unavailable.

        A new token releases the lease. Raises `StorageUnavailable`.
        """
        try:
            newer = self._write_behind.refresh_token(refresh.grant)
            refresh_token = newer or self._grants.open_refresh_token(refresh.stored)
        except UnsealingError:
            logger.exception(
                "a refresh token does not open; check that SECRET_KEY has all keys in use",
                extra={
                    "event": "refresh_token_unreadable",
                    "user": cut_user_id(refresh.grant.user_id),
                },
            )
            return storage_unavailable(_UNREADABLE_RETRY)
        result = await self._calls.refresh(refresh.grant.id, refresh_token, refresh.scopes)
        if isinstance(result.answer, GoogleError):
            return await self._failed(refresh, result.client, result.answer, lease)
        self._calls.succeeded(refresh.key)
        return await self._succeeded(refresh, result.answer, lease)

    async def _succeeded(
        self, refresh: Refresh, answer: TokenResponse, lease: Lease | None
    ) -> RefreshResult:
        scopes = answer.scopes if answer.scopes is not None else refresh.scopes
        if not is_within(scopes, (*refresh.scopes, *IDENTITY_SCOPES)):
            # Google does not promise to narrow a token, so the answer is checked.
            self._records.record(refresh, "too_wide")
            logger.error(
                "Google returned a token with more scopes than requested; it is not handed out",
                extra={"event": "refreshed_token_too_wide"},
            )
            return self._calls.back_off(
                refresh.key,
                google_unavailable("Google returned a token with more scopes than requested."),
            )
        token = AccessToken(answer.access_token, scopes, self._clock.now(), answer.expires_at)
        self._calls.client_succeeded()
        try:
            current = await self._grants.save_refresh(
                refresh.grant,
                scope_set=refresh.scope_set,
                access_token=token,
                refresh_token=answer.refresh_token,
                lease=lease,
            )
        except StorageUnavailable:
            self._write_behind.add(refresh.grant, refresh.scope_set, token, answer.refresh_token)
            self._records.record(refresh, "refreshed_unsaved")
            return CachedToken(refresh.grant, token)
        if current is None:
            self._records.record(refresh, "superseded")
            if answer.refresh_token is not None:
                # The revocation of the grant had only the old refresh token to revoke at Google.
                await self._write_behind.revoke_late(refresh.grant, answer.refresh_token)
            return READ_AGAIN
        self._records.record(refresh, "refreshed")
        return CachedToken(current, token)

    async def _failed(
        self, refresh: Refresh, client: OAuthClient, error: GoogleError, lease: Lease | None
    ) -> NotGranted | Unavailable | ReadAgain:
        if isinstance(error, (ClientRefused, GrantRefused)):
            if refresh.grant.client_id != client.client_id:
                return self._foreign_client(refresh)
            if isinstance(error, GrantRefused):
                return await self._grant_refused(refresh, error, lease)
            return self._client_refused(refresh, client, error)
        if isinstance(error, ScopeRefused):
            self._records.record(refresh, "scope_refused")
            return self._calls.back_off(
                refresh.key, NotGranted(Denial.SCOPE_NOT_GRANTED, refresh.scopes)
            )
        self._records.record(refresh, "unavailable")
        logger.warning(
            "a refresh failed; the grant is kept",
            extra={"event": "refresh_failed", "reason": error.reason},
        )
        if isinstance(error, GoogleUnavailable):
            if not error.was_asked:
                return google_unavailable()
            return self._calls.back_off(
                refresh.grant.id, google_unavailable(), retry_after=error.retry_after
            )
        explanation = f"Google refuses this refresh ({error.reason}); the grant is kept."
        return self._calls.back_off(refresh.key, google_unavailable(explanation))

    def _foreign_client(self, refresh: Refresh) -> Unavailable:
        """Refuse a grant of another OAuth client than the configured one.

        An operator has changed the client. The user has done nothing, even if Google answers
        `invalid_grant`, and the other grants are not affected.
        """
        self._records.record(refresh, "foreign_client")
        logger.error(
            "a grant belongs to another OAuth client than the one configured",
            extra={
                "event": "grant_of_foreign_client",
                "user": cut_user_id(refresh.grant.user_id),
            },
        )
        return self._calls.back_off(refresh.key, Unavailable(Outage.CLIENT, timedelta(0)))

    async def _grant_refused(
        self, refresh: Refresh, error: GrantRefused, lease: Lease | None
    ) -> NotGranted | Unavailable | ReadAgain:
        await self._leases.wait_for_other_scopes(refresh.key, lease)
        if self._leases.may_be_unsettled():
            self._records.record(refresh, "unsettled")
            return self._calls.back_off(refresh.key, storage_unavailable())
        if not await self._grants.mark_reauthorization_required(refresh.grant, error.reason):
            return READ_AGAIN
        # Tokens that were fetched before have most likely ended with the grant.
        self._cache.invalidate(refresh.grant.user_id)
        self._records.record(refresh, "grant_refused")
        logger.info(
            "Google no longer accepts a grant; the user must consent again",
            extra={
                "event": "grant_refused",
                "user": cut_user_id(refresh.grant.user_id),
                "reason": error.reason,
            },
        )
        return NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason=error.reason)

    def _client_refused(
        self, refresh: Refresh, client: OAuthClient, error: ClientRefused
    ) -> Unavailable:
        self._records.record(refresh, "client_refused")
        logger.error(
            "Google refuses the OAuth client; an operator must fix its id or secret",
            extra={
                "event": "oauth_client_refused",
                "reason": error.reason,
                "version": client.version,
            },
        )
        if error.reason in _WHOLE_CLIENT:
            return self._calls.pause_client(client)
        # It concerns this client and this account, as `org_internal` does: other grants go on.
        return self._calls.back_off(refresh.key, Unavailable(Outage.CLIENT, timedelta(0)))
