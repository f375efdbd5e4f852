"""Links and trips in PostgreSQL: one-time, owned by one browser, gone when they are over.

Each method is one transaction, so that whatever happens at once, one wins and the others learn it.
All raise `StorageUnavailable` when PostgreSQL is away.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.consent.links import Link
from broker.consent.transactions import (
    TRANSACTION_LIFE,
    Transaction,
    hash_state,
    stored_transaction,
)
from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import of_link, of_state
from broker.secret import Secret

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.consent")

_KEPT_AFTER_EXPIRY = timedelta(hours=1)
"""So that a link opened again says that it was used, not merely that it is unknown."""


@dataclass(frozen=True, slots=True)
class Trip:
    """A transaction that has come back, with the link that began it."""

    link: Link
    transaction: Transaction
    browser_hash: bytes
    taken_at: datetime
    """By the database's clock, so that whatever else it dates can be told to be later."""


class ConsentStore:
    """Links and the transactions that they start."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock

    async def add(self, link: Link) -> None:
        """Keep a new link."""
        await self._database.execute(
            _SQL["put_link"],
            link.id,
            link.caller,
            link.user_id,
            list(link.scopes),
            link.redirect_uri,
            link.return_to,
            link.login_hint,
            self._clock.now(),
            link.expires_at,
            link.confirm,
        )

    async def find(self, link_id: UUID) -> Link | None:
        """A link, whatever has become of it."""
        row = await self._database.fetchrow(_SQL["find_link"], link_id)
        return _link_from(row) if row is not None else None

    async def begin(self, link: Link, browser_hash: bytes, transaction: Transaction) -> bool:
        """Bind the link to this browser and begin a trip, voiding those before it.

        False, and nothing changed, if the link is over or another browser's.
        """
        now = self._clock.now()
        async with (
            self._database.exclusively(of_link(link.id)),
            self._database.transaction() as connection,
        ):
            if await connection.fetchval(_SQL["open_link"], link.id, browser_hash, now) is None:
                return False
            await self._put(connection, link, browser_hash, transaction)
            return True

    async def begin_again(self, trip: Trip, transaction: Transaction) -> bool:
        """Begin another trip of the same browser, and force consent on this and all later ones.

        False, and nothing changed, if the link was completed meanwhile.
        """
        async with (
            self._database.exclusively(of_link(trip.link.id)),
            self._database.transaction() as connection,
        ):
            reopened = await connection.fetchval(
                _SQL["reopen_link"], trip.link.id, trip.browser_hash
            )
            if reopened is None:
                return False
            await self._put(connection, trip.link, trip.browser_hash, transaction)
            return True

    async def _put(
        self, connection: Connection, link: Link, browser_hash: bytes, transaction: Transaction
    ) -> None:
        now = self._clock.now()
        place = _secrets_place(transaction.state_hash, link)
        secrets = transaction.secrets(_owner(link, browser_hash))
        sealed = self._sealer.seal(secrets, place=place)
        await connection.execute(_SQL["void_transactions"], link.id)
        await connection.execute(
            _SQL["put_transaction"],
            transaction.state_hash,
            link.id,
            browser_hash,
            transaction.consent_prompted,
            sealed.ciphertext,
            sealed.key_id,
            now,
            now + TRANSACTION_LIFE,
            list(transaction.scopes),
        )

    async def take(self, state: str, browser_hashes: Sequence[bytes]) -> Trip | None:
        """End the trip with this state, if this browser began it; it can't be taken twice."""
        state_hash = hash_state(state)
        async with self._database.exclusively(of_state(state_hash)):
            row = await self._database.fetchrow(
                _SQL["take_transaction"], state_hash, list(browser_hashes), self._clock.now()
            )
        if row is None:
            return None
        sealed = Sealed(row["secrets_key_id"], row["sealed_secrets"])
        try:
            link, secrets = self._opened(_link_from(row), state_hash, sealed)
        except UnsealingError:
            logger.exception("a consent transaction does not open; it counts as unknown")
            return None
        browser_hash = row["trip_browser_hash"]
        transaction = stored_transaction(
            state,
            secrets,
            owner=_owner(link, browser_hash),
            scopes=tuple(row["asked_scopes"] or link.scopes),
            consent_prompted=row["consent_prompted"],
        )
        if transaction is None:
            logger.error("a consent transaction was given to somebody else; it counts as unknown")
            return None
        return Trip(link, transaction, browser_hash, row["taken_at"])

    def _opened(self, link: Link, state_hash: bytes, sealed: Sealed) -> tuple[Link, Secret]:
        """The secrets, and the link as it was when the trip began. Raises `UnsealingError`."""
        confirmed = replace(link, confirm=True)
        try:
            secrets = self._sealer.open(sealed, place=_secrets_place(state_hash, confirmed))
        except UnsealingError:
            return link, self._sealer.open(sealed, place=_secrets_place(state_hash, link))
        return confirmed, secrets

    async def find_by_state(self, state: str) -> Link | None:
        """The link of a trip that is under way, for the record; the trip goes on."""
        row = await self._database.fetchrow(
            _SQL["find_link_of_state"], hash_state(state), self._clock.now()
        )
        return _link_from(row) if row is not None else None

    async def complete(self, link: Link) -> bool:
        """Use the link up. False if somebody was faster."""
        async with self._database.exclusively(of_link(link.id)):
            done = await self._database.fetchval(_SQL["complete_link"], link.id, self._clock.now())
        return done is not None

    async def release(self, link: Link) -> None:
        """Undo `complete`, for whoever got True from it and then could not store the grant."""
        async with self._database.exclusively(of_link(link.id)):
            await self._database.execute(_SQL["release_link"], link.id)

    async def purge(self) -> None:
        """Remove what is over."""
        now = self._clock.now()
        await self._database.execute(_SQL["purge_transactions"], now)
        await self._database.execute(_SQL["purge_links"], now - _KEPT_AFTER_EXPIRY)


def _link_from(row: asyncpg.Record) -> Link:
    return Link(
        id=UUID(bytes=row["id"].bytes),
        caller=row["caller"],
        user_id=row["user_id"],
        scopes=tuple(row["scopes"]),
        redirect_uri=row["redirect_uri"],
        return_to=row["return_to"],
        login_hint=row["login_hint"],
        force_consent=row["force_consent"],
        expires_at=row["expires_at"],
        completed_at=row["completed_at"],
        confirm=row["confirm"],
        browser_hash=row["browser_hash"],
    )


def _owner(link: Link, browser_hash: bytes) -> tuple[str, str]:
    """Whose account a trip connects, and in which browser."""
    return link.user_id, browser_hash.hex()


def _secrets_place(state_hash: bytes, link: Link) -> tuple[str, ...]:
    # A trip that is to be confirmed has a place of its own: a replica of a release that knows no
    # confirmation can't open it, and so can't let it take effect at once.
    place = ("consent_transactions", "secrets", state_hash.hex(), str(link.id))
    return (*place, "confirm") if link.confirm else place
