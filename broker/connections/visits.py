"""Visits to the connections page: a signed link that opens it once, then one browser's session.

A row is the link until it is opened, and the session from then on. The table holds only the hash of
the browser's cookie, and every replica can read it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from uuid import UUID, uuid4

import asyncpg

from broker.clock import Clock
from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.database.shares import link_lock

PAGE_PATH = "/connections"

VISIT_LINK_LIFETIME = timedelta(minutes=10)
VISIT_LIFETIME = timedelta(minutes=15)

_KEPT_AFTER_END = timedelta(hours=1)
"""Within it, a browser that comes late learns that its visit is over, and sees the way back."""

_TOKEN_LIMIT = 128
_TOKEN = re.compile(
    rf"(?P<id>[0-9a-f]{{32}})\.(?P<expiry>[0-9]{{1,12}})\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}"
)
_SQL = load_queries("broker.connections")


@dataclass(frozen=True, slots=True)
class Visit:
    """One link to the page, and the session that it began."""

    id: UUID
    caller: str
    """The caller that created the link."""
    user_id: str
    return_to: str | None
    link_expires_at: datetime
    is_opened: bool
    ends_at: datetime

    def is_active(self, now: datetime) -> bool:
        """True if its browser may see and change connections."""
        return self.is_opened and now < self.ends_at


class VisitTokenFault(Enum):
    """Why a link token is rejected."""

    NOT_OURS = auto()
    EXPIRED = auto()


class VisitTokens:
    """Signs and verifies the `link=` parameter of links to the page."""

    def __init__(self, signer: Signer, origin: str) -> None:
        """Browsers reach the public listener under `origin`."""
        self._signer = signer
        self._origin = origin

    def url(self, visit: Visit) -> str:
        """Return the URL for the user's browser."""
        expiry = int(visit.link_expires_at.timestamp())
        token = self._signer.sign(f"{visit.id.hex}.{expiry}")
        return f"{self._origin}{PAGE_PATH}?link={token}"

    def verify(self, unverified: str, *, now: datetime) -> UUID | VisitTokenFault:
        """Return the visit's id if the broker signed the token and it is valid."""
        match = _TOKEN.fullmatch(unverified) if len(unverified) <= _TOKEN_LIMIT else None
        if match is None or self._signer.verify(unverified) is None:
            return VisitTokenFault.NOT_OURS
        if now >= datetime.fromtimestamp(int(match["expiry"]), UTC):
            return VisitTokenFault.EXPIRED
        return UUID(hex=match["id"])


class Visits:
    """The table `connections_visits`. Methods that are async raise `StorageUnavailable`."""

    def __init__(self, database: Database, tokens: VisitTokens, clock: Clock) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock

    async def create(self, *, caller: str, user_id: str, return_to: str | None) -> Visit:
        """Store a new link and return it."""
        now = self._clock.now()
        # Whole seconds, so that token, table and API response agree.
        expires_at = (now + VISIT_LINK_LIFETIME).replace(microsecond=0)
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
            _SQL["insert_visit"], visit.id, caller, user_id, return_to, now, expires_at
        )
        return visit

    def url(self, visit: Visit) -> str:
        """Return the visit's link."""
        return self._tokens.url(visit)

    def verify(self, unverified_token: str) -> UUID | VisitTokenFault:
        """Return the id of the visit that a token names."""
        return self._tokens.verify(unverified_token, now=self._clock.now())

    def is_active(self, visit: Visit) -> bool:
        """True if the visit's browser may see and change connections now."""
        return visit.is_active(self._clock.now())

    async def open(self, visit_id: UUID, visitor_hash: bytes) -> Visit | None:
        """Start the session of a browser, by its cookie. None if the link is used or expired."""
        async with self._database.exclusively(link_lock(visit_id)):
            now = self._clock.now()
            row = await self._database.fetchrow(
                _SQL["open_visit"], visit_id, visitor_hash, now, now + VISIT_LIFETIME
            )
        return _visit_from(row)

    async def find(self, visit_id: UUID) -> Visit | None:
        """Return a visit in any state."""
        return _visit_from(await self._database.fetchrow(_SQL["find_visit"], visit_id))

    async def find_by_visitor(self, visitor_hash: bytes) -> Visit | None:
        """Return the visit of this browser's cookie; it may be over."""
        row = await self._database.fetchrow(_SQL["find_visit_by_visitor"], visitor_hash)
        return _visit_from(row)

    async def extend(self, visit: Visit) -> None:
        """Let an active visit last for its full lifetime again."""
        async with self._database.exclusively(link_lock(visit.id)):
            now = self._clock.now()
            await self._database.execute(_SQL["extend_visit"], visit.id, now, now + VISIT_LIFETIME)

    async def end(self, visit: Visit) -> None:
        """End it now, for every tab of the browser."""
        async with self._database.exclusively(link_lock(visit.id)):
            await self._database.execute(_SQL["end_visit"], visit.id, self._clock.now())

    async def purge(self) -> None:
        """Delete visits an hour after their end, and links that were never opened."""
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
