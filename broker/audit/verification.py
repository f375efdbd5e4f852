"""Verifies the audit trail from its oldest seal to its newest, in constant memory.

Tells each fault that it finds, and goes on. What it can't know for sure is whether the newest seals
were cut off, or all: for that it takes heads of the chain that were kept elsewhere.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import asyncpg

from broker.audit.batch_macs import BEGINNING, Checkpoint, Head, Seal, SealKeys
from broker.audit.records import LineWriter
from broker.audit.rows import checkpoint_of, fields_of, microseconds_of, seal_of
from broker.database.database import Connection
from broker.database.queries import load_queries

ROLL_OUT = timedelta(days=1)
"""So long after the migration that brought seals, replicas of a release without them may still have
been running."""

_SEALS_AT_ONCE = 500
_RECORDS_AT_ONCE = 20_000
_ROWS_FETCHED = 2_000
_SQL = load_queries("broker.audit")


class Kind(StrEnum):
    """What is wrong."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"
    GAP = "gap"
    FORGED = "forged seal"
    UNKNOWN_KEY = "unknown key"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that no broker did."""

    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass(slots=True)
class Tally:
    """What was looked at so far."""

    seals: int = 0
    records: int = 0
    unsealed: int = 0
    checkpoint: Checkpoint | None = None
    began_at: datetime | None = None
    head: Head | None = None
    not_compared: list[Head] = field(default_factory=list)
    """Heads from elsewhere that are older than what retention has left."""


class Verification:
    """One look through the whole trail, as it is at one moment."""

    def __init__(
        self,
        keys: SealKeys,
        *,
        heads: Sequence[Head] = (),
        unsealed_until: datetime | None = None,
    ) -> None:
        """`heads`: from the broker's logs. `unsealed_until`: when the last old replica ended."""
        self._keys = keys
        self._heads: dict[int, set[bytes]] = {}
        for head in heads:
            self._heads.setdefault(head.number, set()).add(head.mac)
        self._newest_at: datetime | None = None
        self._common: int | None = None
        """The newest of the given heads that the chain still had, before it had another."""
        self._first_other: int | None = None
        """The oldest of them whose seal is another one now, though a broker made it."""
        self._unsealed_until = unsealed_until
        self.tally = Tally()

    async def faults(self, connection: Connection) -> AsyncIterator[Fault]:
        """All faults, as they are found. `tally` tells how far it is, and in the end the sum."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            async for fault in self._begin(connection):
                yield fault
            async for seals in _portions(connection):
                for fault in self._check_chain(seals):
                    yield fault
                async for fault in self._check_records(connection, seals):
                    yield fault
            for fault in self._check_heads():
                yield fault
            async for fault in self._check_strays(connection):
                yield fault
            async for fault in self._check_unsealed(connection):
                yield fault
            async for fault in self._check_emptiness(connection):
                yield fault

    # ---- the chain

    async def _begin(self, connection: Connection) -> AsyncIterator[Fault]:
        self.tally.head = Head(0, BEGINNING)
        row = await connection.fetchrow(_SQL["checkpoint"])
        if row is None:
            return
        checkpoint = checkpoint_of(row)
        name = f"the checkpoint of retention after seal {checkpoint.number}"
        if not self._keys.knows(checkpoint):
            yield Fault(Kind.UNKNOWN_KEY, f"{name} was signed with a key that is not in SECRET_KEY")
        elif not self._keys.is_genuine(checkpoint):
            # What it says is worth nothing; the seals it stood for are then a gap.
            yield Fault(Kind.FORGED, name)
            return
        self.tally.checkpoint = checkpoint
        self.tally.began_at = checkpoint.began_at
        self.tally.head = Head(checkpoint.number, checkpoint.seal_mac)
        self._newest_at = checkpoint.until
        self._compare(checkpoint.number, checkpoint.seal_mac)
        for number in [number for number in self._heads if number < checkpoint.number]:
            macs = self._heads.pop(number)
            self.tally.not_compared.extend(Head(number, mac) for mac in sorted(macs))

    def _check_chain(self, seals: Sequence[Seal]) -> Iterator[Fault]:
        for seal in seals:
            before = self.tally.head
            assert before is not None  # noqa: S101  (set before the first seal)
            if seal.number != before.number + 1:
                yield _gap(before.number + 1, seal.number - 1)
            elif seal.previous_mac != before.mac:
                yield Fault(Kind.FORGED, f"seal {seal.number} was not made after the one before it")
            if not self._keys.knows(seal):
                yield Fault(
                    Kind.UNKNOWN_KEY,
                    f"seal {seal.number} was made with {seal.key_id}, which is not in SECRET_KEY",
                )
            elif not self._keys.is_genuine(seal):
                yield Fault(Kind.FORGED, f"seal {seal.number} was not made, or not so, by a broker")
            self._compare(seal.number, seal.mac)
            if self.tally.began_at is None:
                self.tally.began_at = seal.contents.first_at
            self.tally.seals += 1
            self.tally.head = Head(seal.number, seal.mac)
            self._newest_at = seal.contents.last_at

    def _compare(self, number: int, mac: bytes) -> None:
        """With what was there once, by the given heads."""
        known = self._heads.pop(number, None)
        if known is None or self._first_other is not None:
            return
        if known == {mac}:
            self._common = number
        else:
            self._first_other = number

    def _check_heads(self) -> Iterator[Fault]:
        """One fault for all heads that the chain lacks: it went back once, to an earlier state."""
        newest = self.tally.head.number if self.tally.head else 0
        gone = max((number for number in self._heads if number > newest), default=None)
        if self._first_other is not None:
            other = self._first_other
            yield Fault(
                Kind.ROLLED_BACK,
                f"to {_place_before(other, self._common)}, and written on since: seal {other} is "
                "another than the one that was there once",
            )
        elif gone is not None:
            when = f" ({self._newest_at:%Y-%m-%dT%H:%M:%SZ})" if self._newest_at else ""
            yield Fault(
                Kind.ROLLED_BACK, f"to seal {newest}{when}: seal {gone} was there once, and is gone"
            )

    # ---- the records

    async def _check_records(
        self, connection: Connection, seals: Sequence[Seal]
    ) -> AsyncIterator[Fault]:
        found: dict[int, tuple[int, bytes]] = {}
        async for batch, count, digest in _digests(connection, [s.contents.batch for s in seals]):
            found[batch] = (count, digest)
            self.tally.records += count
        for seal in seals:
            count, digest = found.get(seal.contents.batch, (0, b""))
            fault = _difference(seal, count, digest)
            if fault is not None:
                yield fault

    async def _check_strays(self, connection: Connection) -> AsyncIterator[Fault]:
        for row in await connection.fetch(_SQL["strays"]):
            yield Fault(
                Kind.ADDED,
                f"{_records(row['records'])} from id {row['first_id']} on claim batch "
                f"{row['batch']}, which no seal has",
            )

    async def _check_unsealed(self, connection: Connection) -> AsyncIterator[Fault]:
        """Old releases wrote without seals; nobody does so long after seals came."""
        until = self._unsealed_until
        if until is None:
            since: datetime | None = await connection.fetchval(_SQL["sealing_since"])
            if since is None:
                yield Fault(Kind.GAP, "the schema's history does not say when seals came")
            until = self._end_of_roll_out(since)
        row = await connection.fetchrow(_SQL["unsealed"], until)
        assert row is not None  # noqa: S101  (a sum always has one row)
        self.tally.unsealed = row["records"]
        if row["late"]:
            yield self._late(row["late"], row["first_late_id"], until)

    def _end_of_roll_out(self, since: datetime | None) -> datetime | None:
        """By the schema's history, or the first seal if that is older: whoever takes all seals
        away, or has the chain begin anew, makes no record old by it. Nothing if neither is there:
        then no record can be said to be old.
        """
        known = [moment for moment in (since, self.tally.began_at) if moment is not None]
        return min(known) + ROLL_OUT if known else None

    def _late(self, records: int, first_id: int, until: datetime | None) -> Fault:
        late = f"{_records(records)} without a seal, from id {first_id} on, "
        if until is None:
            late += "which nothing shows to be older than seals"
        else:
            late += f"are of a time when every broker sealed (after {until:%Y-%m-%dT%H:%M:%SZ})"
        if self._is_bare:
            return Fault(Kind.GAP, f"all seals are missing: {late}")
        return Fault(Kind.ADDED, late)

    async def _check_emptiness(self, connection: Connection) -> AsyncIterator[Fault]:
        """Where ids were given and nothing is there, not even retention's checkpoint, it was most
        likely taken away. Two things look alike: a very first batch that was rolled back, and
        retention that found only records without a seal, for which it leaves no checkpoint.
        """
        if self._is_bare and not self.tally.unsealed and not self.tally.records:
            given = await connection.fetchval(_SQL["ids_given"])
            if given:
                yield Fault(
                    Kind.REMOVED,
                    f"all records, it seems: ids up to {given} were given, and nothing is there",
                )

    @property
    def _is_bare(self) -> bool:
        return not self.tally.seals and self.tally.checkpoint is None


def _difference(seal: Seal, count: int, digest: bytes) -> Fault | None:
    what = seal.contents
    sealed = f"the {_records(what.records)} of seal {seal.number}"
    when = f"({what.first_at:%Y-%m-%dT%H:%M:%SZ})"
    if count < what.records:
        return Fault(Kind.REMOVED, f"{what.records - count} of {sealed} {when}")
    if count > what.records:
        return Fault(Kind.ADDED, f"{count - what.records} more than {sealed} {when}")
    if digest != what.digest:
        return Fault(Kind.CHANGED, f"some of {sealed} {when}")
    return None


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _gap(first: int, last: int) -> Fault:
    if first == last:
        return Fault(Kind.GAP, f"seal {first} is missing")
    return Fault(Kind.GAP, f"seals {first} to {last} are missing")


def _place_before(other: int, common: int | None) -> str:
    """Where the chain was taken up again: as exactly as the heads that were kept allow."""
    if common is None:
        return f"before seal {other}"
    return f"seal {common}" if common == other - 1 else f"one of the seals {common} to {other - 1}"


async def _portions(connection: Connection) -> AsyncIterator[Sequence[Seal]]:
    """The chain, in portions whose records are bounded, too."""
    portion: list[Seal] = []
    records = 0
    async for row in connection.cursor(_SQL["seals"], prefetch=_SEALS_AT_ONCE):
        portion.append(seal_of(row))
        records += row["records"]
        if len(portion) >= _SEALS_AT_ONCE or records >= _RECORDS_AT_ONCE:
            yield portion
            portion, records = [], 0
    if portion:
        yield portion


async def _digests(
    connection: Connection, batches: Sequence[int]
) -> AsyncIterator[tuple[int, int, bytes]]:
    """Each of the batches that has records: how many, and the digest of their lines."""
    current: int | None = None
    count, digest, writer = 0, hashlib.sha256(), LineWriter(0)
    rows = connection.cursor(_SQL["records_of"], batches, prefetch=_ROWS_FETCHED)
    async for row in rows:
        if row["batch"] != current:
            if current is not None:
                yield current, count, digest.digest()
            current = row["batch"]
            count, digest, writer = 0, hashlib.sha256(), LineWriter(row["batch"])
        count += 1
        digest.update(_line(writer, row))
    if current is not None:
        yield current, count, digest.digest()


def _line(writer: LineWriter, row: asyncpg.Record) -> bytes:
    return writer.line(microseconds_of(row["at"]), *fields_of(row))
