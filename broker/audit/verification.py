"""Verifies the audit trail from its oldest batch to its newest, in constant memory.

Reports each fault and continues. The trail alone can't prove that its newest batches, or all of
them, were not cut off: that takes heads of the chain that were kept elsewhere.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from broker.audit.batch_macs import INITIAL_MAC, AuditKeys, BatchMac, ChainHead, Checkpoint
from broker.audit.records import RecordEncoder
from broker.database.database import Connection
from broker.database.queries import load_queries

ROLLOUT_GRACE = timedelta(days=1)
"""Replicas of a release without a chain may still run this long after the migration that made it.
"""

_BATCHES_PER_PORTION = 500
_RECORDS_PER_PORTION = 20_000
_PREFETCHED_ROWS = 2_000
_SQL = load_queries("broker.audit")


class FaultKind(StrEnum):
    """The ways in which a trail can be wrong."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"
    GAP = "gap"
    FORGED = "forged batch"
    UNKNOWN_KEY = "unknown key"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class TrailFault:
    """A state of the trail that no broker produces."""

    kind: FaultKind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(slots=True)
class VerificationProgress:
    """What was verified so far."""

    batches: int = 0
    records: int = 0
    records_without_batch: int = 0
    checkpoint: Checkpoint | None = None
    began_at: datetime | None = None
    head: ChainHead | None = None
    not_compared: list[ChainHead] = field(default_factory=list)
    """Given heads that are older than the oldest batch that retention has left."""


class TrailVerifier:
    """Reads the whole trail once, in one snapshot."""

    def __init__(
        self,
        keys: AuditKeys,
        *,
        heads: Sequence[ChainHead] = (),
        unsealed_until: datetime | None = None,
    ) -> None:
        """`heads` come from the broker's logs.

        `unsealed_until` is when the last replica of a release without a chain ended.
        """
        self._keys = keys
        self._heads: dict[int, set[bytes]] = {}
        for head in heads:
            self._heads.setdefault(head.number, set()).add(head.mac)
        self._newest_at: datetime | None = None
        self._common: int | None = None
        """The newest given head that the chain has, before the first that differs."""
        self._first_other: int | None = None
        """The oldest given head whose number has another MAC in the chain now, one of a broker's.
        """
        self._unsealed_until = unsealed_until
        self.progress = VerificationProgress()

    async def faults(self, connection: Connection) -> AsyncIterator[TrailFault]:
        """Yield all faults as they are found. `progress` is updated meanwhile."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            async for fault in self._begin(connection):
                yield fault
            async for batches in _portions(connection):
                for fault in self._check_chain(batches):
                    yield fault
                async for fault in self._check_records(connection, batches):
                    yield fault
            for fault in self._check_heads():
                yield fault
            async for fault in self._check_batches_outside_chain(connection):
                yield fault
            async for fault in self._check_records_without_batch(connection):
                yield fault
            async for fault in self._check_emptiness(connection):
                yield fault

    # ---- the chain

    async def _begin(self, connection: Connection) -> AsyncIterator[TrailFault]:
        self.progress.head = ChainHead(0, INITIAL_MAC)
        row = await connection.fetchrow(_SQL["checkpoint"])
        if row is None:
            return
        checkpoint = Checkpoint.from_row(row)
        name = f"the checkpoint of retention after batch {checkpoint.number}"
        if not self._keys.has_key_of(checkpoint):
            yield TrailFault(
                FaultKind.UNKNOWN_KEY, f"{name} was signed with a key that is not in SECRET_KEY"
            )
        elif not self._keys.is_genuine(checkpoint):
            # Nothing in it can be trusted; the batches that it stood for are then a gap.
            yield TrailFault(FaultKind.FORGED, f"{name}: the MAC is invalid")
            return
        self.progress.checkpoint = checkpoint
        self.progress.began_at = checkpoint.began_at
        self.progress.head = ChainHead(checkpoint.number, checkpoint.last_mac)
        self._newest_at = checkpoint.until
        self._compare(checkpoint.number, checkpoint.last_mac)
        for number in [number for number in self._heads if number < checkpoint.number]:
            macs = self._heads.pop(number)
            self.progress.not_compared.extend(ChainHead(number, mac) for mac in sorted(macs))

    def _check_chain(self, batches: Sequence[BatchMac]) -> Iterator[TrailFault]:
        for batch in batches:
            before = self.progress.head
            assert before is not None  # noqa: S101  (set before the first batch)
            if batch.number != before.number + 1:
                yield _gap(before.number + 1, batch.number - 1)
            elif batch.previous_mac != before.mac:
                yield TrailFault(
                    FaultKind.FORGED, f"batch {batch.number} does not continue the one before it"
                )
            if not self._keys.has_key_of(batch):
                yield TrailFault(
                    FaultKind.UNKNOWN_KEY,
                    f"batch {batch.number} was signed with {batch.key_id}, which is not in "
                    "SECRET_KEY",
                )
            elif not self._keys.is_genuine(batch):
                yield TrailFault(FaultKind.FORGED, f"batch {batch.number}: the MAC is invalid")
            self._compare(batch.number, batch.mac)
            if self.progress.began_at is None:
                self.progress.began_at = batch.contents.first_at
            self.progress.batches += 1
            self.progress.head = ChainHead(batch.number, batch.mac)
            self._newest_at = batch.contents.last_at

    def _compare(self, number: int, mac: bytes) -> None:
        """Compare a batch with the given heads of its number."""
        known = self._heads.pop(number, None)
        if known is None or self._first_other is not None:
            return
        if known == {mac}:
            self._common = number
        else:
            self._first_other = number

    def _check_heads(self) -> Iterator[TrailFault]:
        """Yield at most one fault for all missing heads: one rollback lost them all."""
        newest = self.progress.head.number if self.progress.head else 0
        missing = max((number for number in self._heads if number > newest), default=None)
        if self._first_other is not None:
            other = self._first_other
            yield TrailFault(
                FaultKind.ROLLED_BACK,
                f"to {_place_before(other, self._common)}, and continued: batch {other} is not the "
                "one of the given head",
            )
        elif missing is not None:
            when = f" ({self._newest_at:%Y-%m-%dT%H:%M:%SZ})" if self._newest_at else ""
            yield TrailFault(
                FaultKind.ROLLED_BACK,
                f"to batch {newest}{when}: batch {missing} of the given head is missing",
            )

    # ---- the records

    async def _check_records(
        self, connection: Connection, batches: Sequence[BatchMac]
    ) -> AsyncIterator[TrailFault]:
        found: dict[int, tuple[int, bytes]] = {}
        ids = [batch.contents.batch_id for batch in batches]
        async for batch_id, count, digest in _digests(connection, ids):
            found[batch_id] = (count, digest)
            self.progress.records += count
        for batch in batches:
            count, digest = found.get(batch.contents.batch_id, (0, b""))
            fault = _difference(batch, count, digest)
            if fault is not None:
                yield fault

    async def _check_batches_outside_chain(
        self, connection: Connection
    ) -> AsyncIterator[TrailFault]:
        for row in await connection.fetch(_SQL["batches_outside_chain"]):
            yield TrailFault(
                FaultKind.ADDED,
                f"{_records(row['records'])} from id {row['first_id']} on have batch id "
                f"{row['batch']}, which is not in the chain",
            )

    async def _check_records_without_batch(
        self, connection: Connection
    ) -> AsyncIterator[TrailFault]:
        """Old releases wrote records without a batch; long after the chain came, none does."""
        until = self._unsealed_until
        if until is None:
            since: datetime | None = await connection.fetchval(_SQL["chain_since"])
            if since is None:
                yield TrailFault(
                    FaultKind.GAP, "the schema's history does not say when the chain was introduced"
                )
            until = self._end_of_rollout(since)
        row = await connection.fetchrow(_SQL["count_records_without_batch"], until)
        assert row is not None  # noqa: S101  (an aggregate always has one row)
        self.progress.records_without_batch = row["records"]
        if row["late"]:
            yield self._late(row["late"], row["first_late_id"], until)

    def _end_of_rollout(self, since: datetime | None) -> datetime | None:
        """Return the time after which every record has a batch.

        Counted from the schema's history, or from the first batch if that is older: deleting the
        chain, or starting a new one, must not make a record look old. None if neither is there:
        then no record can be called old.
        """
        known = [moment for moment in (since, self.progress.began_at) if moment is not None]
        return min(known) + ROLLOUT_GRACE if known else None

    def _late(self, records: int, first_id: int, until: datetime | None) -> TrailFault:
        late = f"{_records(records)} without a batch, from id {first_id} on, "
        if until is None:
            late += "which nothing proves to be older than the chain"
        else:
            late += f"date from when every release had batches (after {until:%Y-%m-%dT%H:%M:%SZ})"
        if self._is_chain_empty:
            return TrailFault(FaultKind.GAP, f"the whole chain is missing: {late}")
        return TrailFault(FaultKind.ADDED, late)

    async def _check_emptiness(self, connection: Connection) -> AsyncIterator[TrailFault]:
        """Report an empty trail whose id sequence was used: most likely everything was deleted.

        Two harmless cases look alike: a very first batch that was rolled back, and retention that
        found only records without a batch, for which it leaves no checkpoint.
        """
        progress = self.progress
        if self._is_chain_empty and not progress.records_without_batch and not progress.records:
            last_id = await connection.fetchval(_SQL["last_record_id"])
            if last_id:
                yield TrailFault(
                    FaultKind.REMOVED,
                    f"all records, probably: ids up to {last_id} were used, and no record exists",
                )

    @property
    def _is_chain_empty(self) -> bool:
        return not self.progress.batches and self.progress.checkpoint is None


def _difference(batch: BatchMac, count: int, digest: bytes) -> TrailFault | None:
    expected = batch.contents
    whole = f"the {_records(expected.records)} of batch {batch.number}"
    when = f"({expected.first_at:%Y-%m-%dT%H:%M:%SZ})"
    if count < expected.records:
        return TrailFault(FaultKind.REMOVED, f"{expected.records - count} of {whole} {when}")
    if count > expected.records:
        return TrailFault(FaultKind.ADDED, f"{count - expected.records} more than {whole} {when}")
    if digest != expected.digest:
        return TrailFault(FaultKind.CHANGED, f"some of {whole} {when}")
    return None


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _gap(first: int, last: int) -> TrailFault:
    if first == last:
        return TrailFault(FaultKind.GAP, f"batch {first} is missing")
    return TrailFault(FaultKind.GAP, f"batches {first} to {last} are missing")


def _place_before(other: int, common: int | None) -> str:
    """Name the batch that the chain was rolled back to, as exactly as the given heads allow."""
    if common is None:
        return f"before batch {other}"
    return f"batch {common}" if common == other - 1 else f"one of batches {common} to {other - 1}"


async def _portions(connection: Connection) -> AsyncIterator[Sequence[BatchMac]]:
    """Yield the chain in portions that bound the number of records, too."""
    portion: list[BatchMac] = []
    records = 0
    async for row in connection.cursor(_SQL["batch_macs"], prefetch=_BATCHES_PER_PORTION):
        portion.append(BatchMac.from_row(row))
        records += row["records"]
        if len(portion) >= _BATCHES_PER_PORTION or records >= _RECORDS_PER_PORTION:
            yield portion
            portion, records = [], 0
    if portion:
        yield portion


async def _digests(
    connection: Connection, batch_ids: Sequence[int]
) -> AsyncIterator[tuple[int, int, bytes]]:
    """Yield the number of records and the digest of each batch that has records."""
    current: int | None = None
    count, digest, encoder = 0, hashlib.sha256(), RecordEncoder(0)
    rows = connection.cursor(_SQL["records_of_batches"], batch_ids, prefetch=_PREFETCHED_ROWS)
    async for row in rows:
        if row["batch"] != current:
            if current is not None:
                yield current, count, digest.digest()
            current = row["batch"]
            count, digest, encoder = 0, hashlib.sha256(), RecordEncoder(row["batch"])
        count += 1
        digest.update(encoder.line_of_row(row))
    if current is not None:
        yield current, count, digest.digest()
