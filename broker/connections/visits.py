"""Visits to the user's own page: a link that opens it once, then a short stay of one browser.

A row is the link until it is opened, and the stay from then on. The table holds the hash of the
browser's cookie only, and any replica knows it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from broker.clock import Clock
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.database.shares import of_link

LINK_LIFE = timedelta(minutes=10)
VISIT_LIFE = timedelta(minutes=15)

_KEPT_AFTER_END = timedelta(hours=1)
"""So that a browser that comes late is told so, and shown the way back."""

_SQL = load_queries("broker.connections")


@dataclass(frozen=True, slots=True)
class Visit:
    """One link to the page, and the stay that it began."""

    id: UUID
    caller: str
    """Whoever asked for the link."""
    user_id: str
    return_to: str | None
    link_expires_at: datetime
    is_opened: bool
    ends_at: datetime

    def is_open(self, now: datetime) -> bool:
        """Whether its browser may see and change anything."""
        return self.is_opened and now < self.ends_at


class Visits:
    """All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, *, caller: str, user_id: str, return_to: str | None) -> Visit:
        """Keep a new link."""
        now = self._clock.now()
        # Whole seconds, so that the token, the table and the answer say the same.
        expires_at = (now + LINK_LIFE).replace(microsecond=0)
        visit = Visit(
            id=uuid4(),
            caller=caller,
            user_id=user_id,
            return_to=return_to,
            link_expires_at=expires_at,
            is_opened=False,
            ends_at=expires_at,
        )
        await self._database.execute(
            _SQL["put_visit"], visit.id, caller, user_id, return_to, now, expires_at
        )
        return visit

    async def open(self, visit_id: UUID, visitor_hash: bytes) -> Visit | None:
        """Begin the stay of the browser with this cookie; nothing if the link is over."""
        async with self._database.exclusively(of_link(visit_id)):
            now = self._clock.now()
            row = await self._database.fetchrow(
                _SQL["open_visit"], visit_id, visitor_hash, now, now + VISIT_LIFE
            )
        return _visit_from(row)

    async def find(self, visit_id: UUID) -> Visit | None:
        """A visit, whatever has become of it."""
        return _visit_from(await self._database.fetchrow(_SQL["find_visit"], visit_id))

    async def of(self, visitor_hash: bytes) -> Visit | None:
        """The visit that this browser's cookie belongs to; it may be over."""
        return _visit_from(await self._database.fetchrow(_SQL["find_visit_of"], visitor_hash))

    async def prolong(self, visit: Visit) -> None:
        """Let an open visit last for its whole time again."""
        async with self._database.exclusively(of_link(visit.id)):
            now = self._clock.now()
            await self._database.execute(_SQL["prolong_visit"], visit.id, now, now + VISIT_LIFE)

    async def end(self, visit: Visit) -> None:
        """End it now, for every tab of the browser."""
        async with self._database.exclusively(of_link(visit.id)):
            await self._database.execute(_SQL["end_visit"], visit.id, self._clock.now())

    async def purge(self) -> None:
        """Remove what is over."""
        await self._database.execute(_SQL["purge_visits"], self._clock.now() - _KEPT_AFTER_END)


def _visit_from(row: asyncpg.Record | None) -> Visit | None:
    if row is None:
        return None
    return Visit(
        id=UUID(bytes=row["id"].bytes),
        caller=row["caller"],
        user_id=row["user_id"],
        return_to=row["return_to"],
        link_expires_at=row["link_expires_at"],
        is_opened=row["visitor_hash"] is not None,
        ends_at=row["ends_at"],
    )
