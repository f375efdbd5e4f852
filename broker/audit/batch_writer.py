"""Appends batches of audit records to their table and to the chain of MACs, in one transaction.

All replicas share one chain. They COPY their records in parallel; only the last statements, which
number and sign a batch, run one replica at a time. A batch is never written twice, whatever the
outcome of an earlier try.
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

from broker.audit.batch_macs import INITIAL_MAC, AuditKeys, BatchContents, BatchMac, ChainHead
from broker.audit.records import (
    COLUMNS,
    AuditRecord,
    RecordEncoder,
    RecordSubject,
    SubjectFields,
    time_of,
)
from broker.clock import Clock
from broker.database.database import Connection, Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.database.timeouts import LONG_TRANSACTION_SECONDS
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

HEAD_LOG_INTERVAL = timedelta(minutes=10)
"""The head of the chain is logged this often, if it is a new one."""

_LINES_PER_CHUNK = 500
"""The event loop answers requests between two chunks of a statement."""

_RANDOM_BITS = 22
_LARGEST_BIGINT = 2**63 - 1
_SQL = load_queries("broker.audit")


@dataclass(frozen=True, slots=True)
class UnsignedBatch:
    """Records that are written together, under an id chosen before the first try."""

    id: int
    records: Sequence[AuditRecord]
    is_retry: bool = False
    """True if an earlier try may have written it."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield all lines, some at a time, and let the event loop run in between."""
        return _chunks(RecordEncoder(self.id), self.records)

    def contents(self, digest: bytes) -> BatchContents:
        """Return the facts that the batch's MAC covers."""
        epochs = list(map(itemgetter(0), self.records))
        first, last = time_of(_us(min(epochs))), time_of(_us(max(epochs)))
        return BatchContents(self.id, len(self.records), first, last, digest)


def _us(epoch: float) -> int:
    return int(epoch * 1_000_000)


async def _chunks(encoder: RecordEncoder, records: Sequence[AuditRecord]) -> AsyncIterator[bytes]:
    line = encoder.line
    # A token that is requested often is in a batch often: its subject is encoded once.
    encoded: dict[RecordSubject, SubjectFields] = {}
    for start in range(0, len(records), _LINES_PER_CHUNK):
        lines = []
        for epoch, outcome, request_id, subject in records[start : start + _LINES_PER_CHUNK]:
            if isinstance(subject, bytes):
                fields = subject
            elif (fields := encoded.get(subject, b"")) == b"":
                fields = encoded[subject] = subject.subject_fields()
            lines.append(line(int(epoch * 1_000_000), outcome, request_id, fields))
        yield b"".join(lines)
        await asyncio.sleep(0)


class AuditChain:
    """The chain as one replica sees it."""

    def __init__(self, database: Database, clock: Clock, metrics: Metrics, keys: AuditKeys) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._keys = keys
        self._own: ChainHead | None = None
        """The last batch that this replica wrote."""
        self._logged: ChainHead | None = None
        self._logged_at: datetime | None = None

    def new_batch_id(self) -> int:
        """Return an id that rises with time. Another replica's equal id would be noticed."""
        milliseconds = int(self._clock.epoch() * 1000)
        in_time = milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        # From the year 2039 on, or with a clock that far ahead, the ids start over.
        return in_time & _LARGEST_BIGINT

    async def append(self, batch: UnsignedBatch) -> bool:
        """Write and sign a batch, all of it or nothing. Raises `StorageUnavailable`.

        Returns False, and writes nothing, if another batch has its id.
        """
        if batch.is_retry:
            written = await self._database.fetchval(_SQL["batch_digest"], batch.id)
            if written is not None:
                return bool(written == await _digest(batch))
        try:
            async with self._database.transaction(
                isolation="read_committed", within=LONG_TRANSACTION_SECONDS
            ) as connection:
                signed, holds_own = await self._write(connection, batch)
        except asyncpg.UniqueViolationError as error:
            # An earlier try committed only now. The next retry will see it.
            raise StorageUnavailable("an earlier try has written the audit batch") from error
        self._note(signed, holds_own=holds_own)
        return True

    async def _write(self, connection: Connection, batch: UnsignedBatch) -> tuple[BatchMac, bool]:
        digest = hashlib.sha256()

        async def lines() -> AsyncIterator[bytes]:
            async for chunk in batch.chunks():
                digest.update(chunk)
                yield chunk

        await connection.copy_to_table("audit_events", source=lines(), columns=list(COLUMNS))
        contents = batch.contents(digest.digest())
        own = self._own
        head = await connection.fetchrow(
            _SQL["lock_head"], own.number if own else None, own.mac if own else None
        )
        assert head is not None  # noqa: S101  (the function always returns one row)
        before = ChainHead(head["number"], head["mac"] or INITIAL_MAC)
        signed = self._keys.sign(contents, before)
        await connection.execute(
            _SQL["add_batch_mac"],
            signed.number,
            contents.batch_id,
            contents.records,
            contents.first_at,
            contents.last_at,
            contents.digest,
            signed.previous_mac,
            signed.key_id,
            signed.mac,
        )
        return signed, head["holds_own"] and _may_follow(before, after=own)

    def _note(self, signed: BatchMac, *, holds_own: bool) -> None:
        if not holds_own:
            self._metrics.audit_seals_lost.inc()
            logger.error(
                "the audit trail lost batches that this replica wrote: a failover lost its last "
                "moments, or someone removed records",
                extra={
                    "event": "audit_batches_lost",
                    "had": str(self._own),
                    "goes_on_with": signed.number,
                },
            )
        self._own = ChainHead(signed.number, signed.mac)
        self._metrics.audit_seals.inc()
        self._metrics.audit_head.set(signed.number)
        now = self._clock.now()
        if self._logged_at is None or now - self._logged_at >= HEAD_LOG_INTERVAL or not holds_own:
            self._logged_at = now
            self.log_head()

    def log_head(self) -> None:
        """Log the head of the chain: the database's owner can't change it there."""
        if self._own is not None and self._own != self._logged:
            self._logged = self._own
            logger.info(
                "the head of the audit trail",
                extra={"event": "audit_head", "head": str(self._own)},
            )


def _may_follow(head: ChainHead, *, after: ChainHead | None) -> bool:
    """True if a chain whose head was `after` can now have this head.

    SQL checks the same; the owner of the database can replace the function that does.
    """
    return after is None or head.number > after.number or head == after


async def _digest(batch: UnsignedBatch) -> bytes:
    digest = hashlib.sha256()
    async for chunk in batch.chunks():
        digest.update(chunk)
    return digest.digest()
