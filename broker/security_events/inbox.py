"""Receives security events: each token acts once, completely or not at all, on any replica.

The ids of tokens that acted are kept for 31 days; an older token is refused by its age.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

from broker.clock import Clock
from broker.database.database import Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.database.shares import SECURITY_EVENTS, account_lock, use_share
from broker.google.security_events import (
    CLOCK_AHEAD_AT_MOST,
    OLDEST_EVENT_TOKEN,
    SecurityEventToken,
)
from broker.security_events.decisions import AppliedEffect
from broker.security_events.grant_effects import GrantEffects
from broker.security_events.records import SecurityEventRecords
from broker.telemetry.failed_revocations import FailedRevocations

_SQL = load_queries("broker.security_events")

KEPT = timedelta(days=31)
"""Longer than any token is accepted, whatever the clocks say."""
assert KEPT > OLDEST_EVENT_TOKEN + CLOCK_AHEAD_AT_MOST  # noqa: S101  (of constants)

_PURGED_AT_ONCE = 10_000


async def has_arrived(database: Database, state: str) -> bool:
    """True if any replica has received a verification event that carries `state`."""
    return bool(await database.fetchval(_SQL["has_verification"], state))


class KnownClients:
    """The OAuth clients whose security events concern this broker."""

    def __init__(self, database: Database, current_client_id: Callable[[], str]) -> None:
        self._database = database
        self._current_client_id = current_client_id

    async def include_any(self, client_ids: Sequence[str]) -> bool:
        """True if one of them is the current client, or that of a grant or pending consent.

        Raises `StorageUnavailable`.
        """
        if self._current_client_id() in client_ids:
            return True
        return bool(await self._database.fetchval(_SQL["is_client_known"], list(client_ids)))


class SecurityEventInbox:
    """All methods raise `StorageUnavailable` while PostgreSQL is down."""

    def __init__(
        self,
        *,
        database: Database,
        effects: GrantEffects,
        records: SecurityEventRecords,
        failed: FailedRevocations,
        clock: Clock,
        forget: Callable[[str], None],
    ) -> None:
        """`forget` is called with each user whose grants changed."""
        self._database = database
        self._effects = effects
        self.records = records
        self._failed = failed
        self._clock = clock
        self._forget = forget

    async def receive(self, token: SecurityEventToken, *, request_id: str | None = None) -> None:
        """Apply a verified token unless it was applied before; a failure is reported."""
        kinds = [event.kind.value for event in token.events]
        async with self._failed.reporting(
            ("security event", token.jti),
            "a security event could not be carried out",
            about={"event": "security_event_failed", "kinds": kinds},
            counted=[self.records.counter.labels(kind, "failed") for kind in kinds],
            is_done=lambda: self._has_acted(token.jti),
        ):
            use_share(SECURITY_EVENTS)
            await self._apply(token, request_id)

    async def _has_acted(self, jti: str) -> bool:
        rows = await self._database.read(_SQL["has_acted"], jti)
        return bool(rows[0]["has_acted"])

    async def _apply(self, token: SecurityEventToken, request_id: str | None) -> None:
        done: Sequence[AppliedEffect] = ()
        try:
            async with self._database.connection() as connection:
                # Before the locks: no task may hold a connection while it waits for a lock.
                accounts = await self._effects.accounts(connection, token)
            async with (
                self._database.exclusively(*map(account_lock, accounts)),
                self._database.transaction() as connection,
            ):
                is_new = await connection.fetchval(
                    _SQL["note_token"],
                    token.jti,
                    [event.kind.value for event in token.events],
                    next((event.state for event in token.events if event.state), None),
                    token.issued_at,
                    self._clock.now(),
                )
                done = await self._effects.apply(connection, token) if is_new is not None else ()
        except (StorageUnavailable, asyncio.CancelledError):
            # The deadline may have cancelled the commit.
            self._forget_users_of(done)
            self.records.unsettled(done, request_id)
            raise
        if is_new is None:
            self.records.duplicate(token, request_id)
        self._forget_users_of(done)
        for each in done:
            self.records.applied(each, request_id)

    def _forget_users_of(self, done: Sequence[AppliedEffect]) -> None:
        """Drop the users' cached tokens here; PostgreSQL notifies the other replicas."""
        for each in done:
            if each.grant is not None:
                self._forget(each.grant.user_id)

    async def purge(self) -> None:
        """Delete what no acceptable token can need any more, some rows at a time."""
        before = self._clock.now() - KEPT
        await self._database.execute(_SQL["purge_tokens"], before, _PURGED_AT_ONCE)
        await self._database.execute(_SQL["purge_account_states"], before, _PURGED_AT_ONCE)
        await self._database.execute(_SQL["purge_given_up"], before, _PURGED_AT_ONCE)
