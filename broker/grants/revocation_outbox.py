"""What is still to be told to Google: revocations that wait, sealed, until it has answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from broker.clock import Clock
from broker.crypto.sealing import Sealed, Sealer
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants.rows import GrantSealer
from broker.secret import Secret

_SQL = load_queries("broker.grants")


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """One token that Google is to be told to revoke."""

    id: UUID
    google_sub: str
    origin: str
    attempts: int
    """This one included."""
    sealed_token: Sealed


class PendingRevocations:
    """An outbox in PostgreSQL. All methods raise `StorageUnavailable` when that is away."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = GrantSealer(sealer)
        self._clock = clock

    async def claim(self, *, lease: timedelta, limit: int) -> Sequence[PendingRevocation]:
        """Take some that are due. When the lease has run out, anybody may take them again."""
        now = self._clock.now()
        rows = await self._database.fetch(_SQL["claim_revocations"], now, now + lease, limit)
        return [
            PendingRevocation(
                id=UUID(bytes=row["id"].bytes),
                google_sub=row["google_sub"],
                origin=row["origin"],
                attempts=row["attempts"],
                sealed_token=Sealed(row["token_key_id"], row["sealed_token"]),
            )
            for row in rows
        ]

    def open(self, pending: PendingRevocation) -> Secret:
        """The token to revoke. Raises `UnsealingError`."""
        return self._sealer.open_revocation(pending.id, pending.google_sub, pending.sealed_token)

    async def finish(self, pending: PendingRevocation) -> None:
        """Google has answered: forget the token."""
        await self._database.execute(
            _SQL["finish_revocation"], pending.id, pending.google_sub, self._clock.now()
        )

    async def postpone(self, pending: PendingRevocation, *, until: datetime) -> None:
        """Google has not answered: try again at `until`."""
        await self._database.execute(
            _SQL["postpone_revocation"], pending.id, pending.google_sub, self._clock.now(), until
        )
