"""Appends batches of audit records to their table and to the chain of seals, in one transaction.

There is one chain for all replicas. Their COPYs run beside each other; only the last statements,
which number and sign, take turns. Never writes a batch twice, whatever became of an earlier try.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import itemgetter

import asyncpg

from broker.audit.batch_macs import (
    BEGINNING,
    Contents,
    Head,
    Seal,
    SealKeys,
    moment_of,
)
from broker.audit.records import COLUMNS, LineWriter, Record, Telling, Told
from broker.clock import Clock
from broker.database.database import Connection, Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.database.timeouts import LONG_TRANSACTION_SECONDS
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

HEAD_EVERY = timedelta(minutes=10)
"""How often the head of the chain is logged, if there is a new one."""

_LINES_AT_ONCE = 500
"""Requests are answered between two such portions of a statement."""

_RANDOM_BITS = 22
_LARGEST_BIGINT = 2**63 - 1
_SQL = load_queries("broker.audit")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are written and sealed together, under an id chosen before the first try."""

    id: int
    records: Sequence[Record]
    is_tried: bool = False
    """Whether an earlier try may have written it."""

    def portions_of_lines(self) -> AsyncIterator[bytes]:
        """All lines, some at a time; the loop may turn in between."""
        return _portions(LineWriter(self.id), self.records)

    def contents(self, digest: bytes) -> Contents:
        """What its seal says."""
        epochs = list(map(itemgetter(0), self.records))
        first, last = moment_of(_us(min(epochs))), moment_of(_us(max(epochs)))
        return Contents(self.id, len(self.records), first, last, digest)


def _us(epoch: float) -> int:
    return int(epoch * 1_000_000)


async def _portions(writer: LineWriter, records: Sequence[Record]) -> AsyncIterator[bytes]:
    line = writer.line
    # What is asked for often is in a batch often: told once.
    told: dict[Telling, Told] = {}
    for start in range(0, len(records), _LINES_AT_ONCE):
        lines = []
        for epoch, outcome, request_id, about in records[start : start + _LINES_AT_ONCE]:
            if isinstance(about, bytes):
                words = about
            elif (words := told.get(about, b"")) == b"":
                words = told[about] = about.told()
            lines.append(line(int(epoch * 1_000_000), outcome, request_id, words))
        yield b"".join(lines)
        await asyncio.sleep(0)


class AuditChain:
    """The chain as one replica sees it."""

    def __init__(self, database: Database, clock: Clock, metrics: Metrics, keys: SealKeys) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._keys = keys
        self._own: Head | None = None
        self._logged: Head | None = None
        self._logged_at: datetime | None = None

    def new_batch_id(self) -> int:
        """An id in the order of time, that no other replica has (if it has, it is noticed)."""
        milliseconds = int(self._clock.epoch() * 1000)
        in_time = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        # From the year 2039 on, or by a clock that is so far ahead, they begin anew.
        return in_time & _LARGEST_BIGINT

    async def append(self, batch: Batch) -> bool:
        """Write and seal a batch; all of it or nothing. Raises `StorageUnavailable`.

        False, and nothing written, if another batch has its id.
        """
        if batch.is_tried:
            written = await self._database.fetchval(_SQL["digest_of"], batch.id)
            if written is not None:
                return bool(written == await _digest(batch))
        try:
            async with self._database.transaction(
                isolation="read_committed", within=LONG_TRANSACTION_SECONDS
            ) as connection:
                seal, holds_own = await self._write(connection, batch)
        except asyncpg.UniqueViolationError as error:
            # An earlier try came to its end only now. The next one will see it.
            raise StorageUnavailable("a batch of audit records is there already") from error
        self._note(seal, holds_own=holds_own)
        return True

    async def _write(self, connection: Connection, batch: Batch) -> tuple[Seal, bool]:
        digest = hashlib.sha256()

        async def lines() -> AsyncIterator[bytes]:
            async for portion in batch.portions_of_lines():
                digest.update(portion)
                yield portion

        await connection.copy_to_table("audit_events", source=lines(), columns=list(COLUMNS))
        contents = batch.contents(digest.digest())
        own = self._own
        head = await connection.fetchrow(
            _SQL["head"], own.number if own else None, own.mac if own else None
        )
        assert head is not None  # noqa: S101  (the function always answers with one row)
        before = Head(head["number"], head["mac"] or BEGINNING)
        seal = self._keys.seal(contents, before)
        await connection.execute(
            _SQL["add_seal"],
            seal.number,
            contents.batch,
            contents.records,
            contents.first_at,
            contents.last_at,
            contents.digest,
            seal.previous_mac,
            seal.key_id,
            seal.mac,
        )
        return seal, head["holds_own"] and _is_possible(before, after=own)

    def _note(self, seal: Seal, *, holds_own: bool) -> None:
        if not holds_own:
            self._metrics.audit_seals_lost.inc()
            logger.error(
                "the audit trail lost seals that were there: after a failover, its last moments; "
                "else somebody removed records",
                extra={"had": str(self._own), "goes_on_with": seal.number},
            )
        self._own = Head(seal.number, seal.mac)
        self._metrics.audit_seals.inc()
        self._metrics.audit_head.set(seal.number)
        now = self._clock.now()
        if self._logged_at is None or now - self._logged_at >= HEAD_EVERY or not holds_own:
            self._logged_at = now
            self.log_head()

    def log_head(self) -> None:
        """Put the head where the database's owner can't change it."""
        if self._own is not None and self._own != self._logged:
            self._logged = self._own
            logger.info("the head of the audit trail", extra={"head": str(self._own)})


def _is_possible(head: Head, *, after: Head | None) -> bool:
    """Whether a chain that had one head may have come to the other. Seen here, too: who owns the
    database can have its function say that nothing is gone.
    """
    return after is None or head.number > after.number or head == after


async def _digest(batch: Batch) -> bytes:
    digest = hashlib.sha256()
    async for portion in batch.portions_of_lines():
        digest.update(portion)
    return digest.digest()
