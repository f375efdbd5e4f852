"""The outbox of revocations to be sent to Google; the table `pending_revocations`.

Revoking one token at Google revokes everything that the account allowed this project. So a
revocation is queued only if no live grant, and no pending consent that may become one, uses the
account.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.database.database import Connection, Database
from broker.database.leased_outbox import LeasedOutbox
from broker.database.queries import load_queries
from broker.grants.rows import GrantSealer
from broker.secret import Secret

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants", "revocation_outbox.sql")


@dataclass(frozen=True, slots=True)
class QueuedRevocation:
    """One token that Google has to revoke."""

    id: UUID
    google_sub: str
    origin: str
    attempts: int
    """Including the current one."""
    sealed_token: Sealed


class RevocationOutbox:
    """Queues revocations, and hands them out for the calls to Google.

    A method with a `connection` is part of the caller's transaction, which has locked the account.
    All methods raise `StorageUnavailable` if PostgreSQL is unavailable.
    """

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = GrantSealer(sealer)
        self._clock = clock
        self._leased = LeasedOutbox(
            database, clock, claim_query=_SQL["claim_revocations"], item_from=_revocation_from
        )

    # Queueing, in the caller's transaction.

    async def add(
        self, connection: Connection, google_sub: str, token: Secret, *, origin: str
    ) -> None:
        """Queue the revocation of a token."""
        revocation_id = uuid4()
        sealed = self._sealer.seal_revocation(revocation_id, google_sub, token)
        await connection.execute(
            _SQL["enqueue_revocation"],
            revocation_id,
            google_sub,
            sealed.ciphertext,
            sealed.key_id,
            origin,
            self._clock.now(),
        )

    async def add_opened(
        self,
        connection: Connection,
        google_sub: str,
        open_token: Callable[[], Secret | None],
        *,
        origin: str,
    ) -> None:
        """Queue the revocation of a stored token, if there is one.

        A token that does not open is logged and skipped: the user's revocation must succeed even if
        Google can't be called.
        """
        try:
            token = open_token()
        except UnsealingError:
            logger.exception(
                "a token cannot be revoked at Google: it does not open with any configured key",
                extra={"event": "revocation_token_unreadable"},
            )
            return
        if token is not None:
            await self.add(connection, google_sub, token, origin=origin)

    async def add_unless_in_use(
        self, connection: Connection, google_sub: str, token: Secret | None, *, origin: str
    ) -> None:
        """Queue the revocation of a token that was not stored, unless its account is in use."""
        if token is not None and not await self.is_account_in_use(connection, google_sub):
            await self.add(connection, google_sub, token, origin=origin)

    async def is_account_in_use(self, connection: Connection, google_sub: str) -> bool:
        """True if a live grant, or a pending consent that may become one, needs the account."""
        in_use = await connection.fetchval(_SQL["is_account_in_use"], google_sub, self._clock.now())
        return bool(in_use)

    async def cancel(self, connection: Connection, google_sub: str, *, at: datetime) -> None:
        """Cancel the account's revocations, because it was connected again."""
        await connection.execute(_SQL["cancel_revocations"], google_sub, at)

    async def may_have_revoked(
        self, connection: Connection, google_sub: str, exchanged_after: datetime | None
    ) -> bool:
        """True if a call that revokes the account is under way, or was made since a time by the
        database's clock: tokens that Google issued since then are revoked too, or may be.
        """
        revoked = await connection.fetchval(
            _SQL["was_revoked_at_google"], google_sub, self._clock.now(), exchanged_after
        )
        return bool(revoked)

    # Sending.

    async def claim(self, *, lease: timedelta, limit: int) -> Sequence[QueuedRevocation]:
        """Claim some due revocations. After the lease any replica may claim them again."""
        return await self._leased.claim(lease=lease, limit=limit)

    def open(self, queued: QueuedRevocation) -> Secret:
        """Return the token to revoke. Raises `UnsealingError`."""
        return self._sealer.open_revocation(queued.id, queued.google_sub, queued.sealed_token)

    async def finish(self, queued: QueuedRevocation) -> None:
        """Delete a revocation that Google has answered, with its token."""
        await self._database.execute(
            _SQL["finish_revocation"], queued.id, queued.google_sub, self._clock.now()
        )

    async def postpone(self, queued: QueuedRevocation, *, until: datetime) -> None:
        """Make a revocation due again at `until`, because Google has not answered."""
        await self._database.execute(
            _SQL["postpone_revocation"], queued.id, queued.google_sub, self._clock.now(), until
        )


def _revocation_from(row: asyncpg.Record) -> QueuedRevocation:
    return QueuedRevocation(
        id=UUID(bytes=row["id"].bytes),
        google_sub=row["google_sub"],
        origin=row["origin"],
        attempts=row["attempts"],
        sealed_token=Sealed(row["token_key_id"], row["sealed_token"]),
    )
