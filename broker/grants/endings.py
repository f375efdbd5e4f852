"""How a consent ends that never became a grant: erased here, and undone at Google unless needed.

Revoking one token ends everything that the account allowed this project. So Google is told only
where no live grant, and nothing that may become one, holds the account.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import Sealer, UnsealingError
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.grants.pending.rows import PendingSealer
from broker.grants.rows import GrantSealer
from broker.secret import Secret

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")


class ConsentEndings:
    """Each method is part of its caller's transaction, which has locked user and account."""

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._revocations = GrantSealer(sealer)
        self._pending = PendingSealer(sealer)
        self._clock = clock

    async def lock_accounts(
        self, connection: Connection, user_id: str, google_sub: str | None
    ) -> None:
        """Lock all the accounts that a withdrawal concerns, in the order that all keep to."""
        for row in await connection.fetch(_SQL["accounts_of_user"], user_id, google_sub):
            await connection.execute(_SQL["lock_account"], row["google_sub"])

    async def take(
        self, connection: Connection, user_id: str, google_sub: str | None
    ) -> Sequence[asyncpg.Record]:
        """Erase what waits for a confirmation; the rows are for `undo`, once the grants ended."""
        return await connection.fetch(_SQL["take_pending_consents_of_user"], user_id, google_sub)

    async def undo(self, connection: Connection, row: asyncpg.Record, *, origin: str) -> None:
        """Have Google told about an erased row of `pending_consents`, unless the account is held.

        A row without a refresh token belongs to a grant that was live, whose end was told itself.
        """
        if await self._is_held(connection, row["google_sub"]):
            return
        try:
            token = self._pending.open_refresh_token(row)
        except UnsealingError:
            logger.exception("a token that no longer opens can't be revoked at Google")
            return
        if token is not None:
            await self._note(connection, row["google_sub"], token, origin)

    async def refuse(
        self, connection: Connection, google_sub: str, token: Secret | None, *, origin: str
    ) -> None:
        """The same for a token that was never stored, if there is one. The account is enough to
        have locked.
        """
        if token is not None and not await self._is_held(connection, google_sub):
            await self._note(connection, google_sub, token, origin)

    async def is_ended(
        self, connection: Connection, google_sub: str, exchanged_after: datetime | None
    ) -> bool:
        """Whether what Google gave an account, not before a time by the database's clock, has ended
        since, or ends just now, because Google was told so.
        """
        ended = await connection.fetchval(
            _SQL["is_ended_at_google"], google_sub, self._clock.now(), exchanged_after
        )
        return bool(ended)

    async def _is_held(self, connection: Connection, google_sub: str) -> bool:
        held = await connection.fetchval(_SQL["account_is_held"], google_sub, self._clock.now())
        return bool(held)

    async def _note(
        self, connection: Connection, google_sub: str, token: Secret, origin: str
    ) -> None:
        revocation_id = uuid4()
        sealed = self._revocations.seal_revocation(revocation_id, google_sub, token)
        await connection.execute(
            _SQL["put_revocation"],
            revocation_id,
            google_sub,
            sealed.ciphertext,
            sealed.key_id,
            origin,
            self._clock.now(),
        )
