"""What the product is still to be told: claimed, settled, and in the end forgotten.

Nothing here adds to it. The database does, by triggers on grants: a row for each change of status,
in the transaction that made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.database.database import Database
from broker.database.queries import load_queries

_SQL = load_queries("broker.webhooks")

LEASE = timedelta(seconds=30)
"""Longer than any call to the receiver; a replica that dies with an event in hand lets go then."""

LONGEST_WAIT = timedelta(days=7)
"""An event that was not taken by then is given up, however often it was tried."""

_KEPT_GIVEN_UP = timedelta(days=14)
_KEPT_WITHOUT_RECEIVER = timedelta(hours=1)
"""Long enough for a roll-out in which some replicas have a receiver already and others have not."""

_AGED_AT_ONCE = 100
_FORGOTTEN_AT_ONCE = 50_000


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
    """This one included."""


class WebhookOutbox:
    """Hands out events to send. All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, *, limit: int) -> Sequence[WebhookEvent]:
        """Take some that are due. When the lease has run out, anybody may take them again."""
        now = self._clock.now()
        rows = await self._database.fetch(_SQL["claim"], now, now + LEASE, limit)
        return [_event_from(row) for row in rows]

    async def finish(self, event: WebhookEvent) -> None:
        """The receiver has it: forget it."""
        await self._database.execute(_SQL["finish"], event.id, event.attempts)

    async def postpone(self, event: WebhookEvent, *, until: datetime, failure: str) -> None:
        """The receiver has not taken it: send it again at `until`."""
        await self._database.execute(_SQL["postpone"], event.id, event.attempts, until, failure)

    async def give_up(self, event: WebhookEvent, *, failure: str) -> bool:
        """Send it no more. False when somebody else had taken it meanwhile."""
        given_up = await self._database.fetchval(
            _SQL["give_up"], event.id, event.attempts, self._clock.now(), failure
        )
        return given_up is not None

    async def give_up_old(self) -> Sequence[WebhookEvent]:
        """Send no more what waits for too long, some at a time; returns what that was."""
        now = self._clock.now()
        rows = await self._database.fetch(
            _SQL["give_up_old"], now - LONGEST_WAIT, now, _AGED_AT_ONCE
        )
        return [_event_from(row) for row in rows]

    async def forget_given_up(self) -> None:
        """Forget what was given up long ago."""
        horizon = self._clock.now() - _KEPT_GIVEN_UP
        await self._database.execute(_SQL["forget_given_up"], horizon)

    async def forget_unwanted(self) -> None:
        """For a replica that has no receiver: let nothing pile up that nobody wants.

        Some at a time, so that it never takes longer than a statement may.
        """
        now = self._clock.now()
        await self._database.execute(
            _SQL["forget_unwanted"],
            now - _KEPT_WITHOUT_RECEIVER,
            now - LONGEST_WAIT,
            _FORGOTTEN_AT_ONCE,
        )

    async def count_waiting(self) -> int:
        """How many are still to be sent."""
        return int(await self._database.fetchval(_SQL["count_waiting"]))


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
