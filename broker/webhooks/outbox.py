"""The outbox of webhooks: events are claimed, settled, and purged in the end.

Database triggers on grants add the rows, one for each change of status, in its transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.database.database import Database
from broker.database.leased_outbox import LeasedOutbox
from broker.database.queries import load_queries

_SQL = load_queries("broker.webhooks")

LEASE = timedelta(seconds=30)
"""Longer than any call to the receiver; after it, the events of a dead replica are due again."""

GIVE_UP_AFTER = timedelta(days=7)
"""An event older than this is given up, however often it was tried."""

_KEPT_GIVEN_UP = timedelta(days=14)
_KEPT_WITHOUT_RECEIVER = timedelta(hours=1)
"""Long enough for a rollout in which only some replicas have a receiver."""

_GIVEN_UP_AT_ONCE = 100
_PURGED_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One change of a grant's status, as it was then."""

    id: UUID
    type: str
    user_id: str
    google_sub: str
    scopes: tuple[str, ...]
    status: str
    reason: str | None
    happened_at: datetime
    attempts: int
    """Including the current one."""


class WebhookOutbox:
    """Hands out events to send. All methods raise `StorageUnavailable` while PostgreSQL is down.

    An event is settled only by the replica whose attempt is the latest: after its lease another one
    may have claimed it.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._leased = LeasedOutbox(
            database, clock, claim_query=_SQL["claim"], item_from=_event_from
        )

    async def claim(self, *, limit: int) -> Sequence[WebhookEvent]:
        """Claim some events that are due. After the lease any replica may claim them again."""
        return await self._leased.claim(lease=LEASE, limit=limit)

    async def finish(self, event: WebhookEvent) -> None:
        """Delete an event that the receiver has accepted."""
        await self._database.execute(_SQL["finish"], event.id, event.attempts)

    async def postpone(self, event: WebhookEvent, *, until: datetime, failure: str) -> None:
        """Make an event that the receiver has not accepted due again at `until`."""
        await self._database.execute(_SQL["postpone"], event.id, event.attempts, until, failure)

    async def give_up(self, event: WebhookEvent, *, failure: str) -> bool:
        """Stop sending an event. Returns False if another replica has claimed it meanwhile."""
        given_up = await self._database.fetchval(
            _SQL["give_up"], event.id, event.attempts, self._clock.now(), failure
        )
        return given_up is not None

    async def give_up_old(self) -> Sequence[WebhookEvent]:
        """Stop sending events older than `GIVE_UP_AFTER`, some at a time; returns those events."""
        now = self._clock.now()
        rows = await self._database.fetch(
            _SQL["give_up_old"], now - GIVE_UP_AFTER, now, _GIVEN_UP_AT_ONCE
        )
        return [_event_from(row) for row in rows]

    async def purge_given_up(self) -> None:
        """Delete events that were given up long ago."""
        horizon = self._clock.now() - _KEPT_GIVEN_UP
        await self._database.execute(_SQL["purge_given_up"], horizon)

    async def purge_without_receiver(self) -> None:
        """Delete events that no replica sends, some at a time, to stay below the statement timeout.

        For a replica that has no receiver.
        """
        now = self._clock.now()
        await self._database.execute(
            _SQL["purge_without_receiver"],
            now - _KEPT_WITHOUT_RECEIVER,
            now - GIVE_UP_AFTER,
            _PURGED_AT_ONCE,
        )

    async def count_unsent(self) -> int:
        """Return the number of events still to be sent."""
        return int(await self._database.fetchval(_SQL["count_unsent"]))


def _event_from(row: asyncpg.Record) -> WebhookEvent:
    return WebhookEvent(
        id=UUID(bytes=row["id"].bytes),
        type=row["type"],
        user_id=row["user_id"],
        google_sub=row["google_sub"],
        scopes=tuple(row["scopes"]),
        status=row["status"],
        reason=row["reason"],
        happened_at=row["happened_at"],
        attempts=row["attempts"],
    )
