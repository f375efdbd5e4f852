"""Deletes audit records whose time is over, by whole batches from the oldest on.

Leaves a signed checkpoint, so that the rest still verifies. Faults of the part that goes are not
covered up: they are logged, counted, and told by the checkpoint. So is what could not be verified:
whoever owns the database can write a lost key's name, and any time, to seals of this one's.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.audit.batch_macs import BEGINNING, Checkpoint, Head, Seal, SealKeys
from broker.audit.rows import checkpoint_of, seal_of
from broker.clock import Clock, rfc3339
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.timeouts import LONG_TRANSACTION_SECONDS
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

REST = timedelta(hours=1)
"""How long nothing is looked for after nothing was left to delete."""

EVERY_SECONDS = 15.0

_AT_A_TIME_SECONDS = 5.0
_SEALS_AT_ONCE = 500
_RECORDS_AT_ONCE = 10_000
_SQL = load_queries("broker.audit")


class AuditRetention:
    """Ends what is older than it may become."""

    def __init__(
        self,
        *,
        database: Database,
        clocks: Sequence[Clock],
        metrics: Metrics,
        keys: SealKeys,
        keep: timedelta | None,
    ) -> None:
        """With `keep` None all is kept.

        The time is the earliest of the clocks: one that is set ahead must not end anything.
        """
        self._database = database
        self._clocks = clocks
        self._metrics = metrics
        self._keys = keys
        self._keep = keep
        self._not_before: datetime | None = None

    async def purge(self) -> None:
        """Delete what is due, for some seconds at most. Raises `StorageUnavailable`."""
        await self._renew_checkpoint()
        now = self._now()
        if self._keep is None or (self._not_before is not None and now < self._not_before):
            return
        loop = asyncio.get_running_loop()
        pause_at = loop.time() + _AT_A_TIME_SECONDS
        while loop.time() < pause_at:
            if not await self.delete_portion(now - self._keep):
                self._not_before = now + REST
                return

    def _now(self) -> datetime:
        return min(clock.now() for clock in self._clocks)

    async def delete_portion(self, before: datetime) -> bool:
        """Delete some of what happened before then; whether there may be more."""
        async with self._database.transaction(within=LONG_TRANSACTION_SECONDS) as connection:
            if not await connection.fetchval(_SQL["begin_purge"]):
                return False
            rows = await connection.fetch(_SQL["oldest_seals"], _SEALS_AT_ONCE)
            seals = _over(list(map(seal_of, rows)), before=before, now=self._now())
            if not seals:
                # Last: among millions of old sealed ones they take long to find.
                deleted = await connection.execute(
                    _SQL["delete_unsealed"], before, _RECORDS_AT_ONCE
                )
                return deleted != "DELETE 0"
            checkpoint = await self._delete(connection, seals)
        unverified = self._unverified(seals)
        self._metrics.audit_unverified.inc(unverified)
        logger.log(
            logging.WARNING if unverified else logging.INFO,
            "audit records were deleted, for their time is over",
            extra={
                "records": sum(seal.contents.records for seal in seals),
                "unverified_seals": unverified,
                "checkpoint": str(Head(checkpoint.number, checkpoint.seal_mac)),
                "until": rfc3339(checkpoint.until),
            },
        )
        return True

    async def _delete(self, connection: Connection, seals: Sequence[Seal]) -> Checkpoint:
        row = await connection.fetchrow(_SQL["checkpoint"])
        before = checkpoint_of(row) if row is not None else None
        batches = [seal.contents.batch for seal in seals]
        gone = {
            row["batch"]: row["records"]
            for row in await connection.fetch(_SQL["delete_records"], batches)
        }
        faults = self._faults(before, seals)
        faults += sum(gone.get(s.contents.batch, 0) != s.contents.records for s in seals)
        if faults:
            self._metrics.audit_faults.inc(faults)
            logger.error(
                "the oldest part of the audit trail, which is deleted now, was not whole",
                extra={"faults": faults, "from": seals[0].number, "to": seals[-1].number},
            )
        await connection.execute(_SQL["delete_seals"], seals[-1].number)
        if before is not None and not self._keys.is_genuine(before):
            # What it says is worth nothing.
            before = None
        checkpoint = self._checkpoint(before, seals, records=sum(gone.values()), faults=faults)
        await self._put_checkpoint(connection, checkpoint)
        return checkpoint

    def _checkpoint(
        self, before: Checkpoint | None, seals: Sequence[Seal], *, records: int, faults: int
    ) -> Checkpoint:
        """What stands for these seals and for those before them."""
        return self._keys.checkpoint(
            number=seals[-1].number,
            seal_mac=seals[-1].mac,
            began_at=before.began_at if before else seals[0].contents.first_at,
            until=max(seal.contents.last_at for seal in seals),
            records=(before.records if before else 0) + records,
            faults=(before.faults if before else 0) + faults,
            unverified=(before.unverified if before else 0) + self._unverified(seals),
        )

    def _unverified(self, seals: Sequence[Seal]) -> int:
        """How many are of a key that is not configured, by what they say themselves."""
        return sum(not self._keys.knows(seal) for seal in seals)

    async def _renew_checkpoint(self) -> None:
        """Have it signed with the first key while the former one is known: so one whose key is not
        was not made by a broker, unless that key went before its time.
        """
        row = await self._database.fetchrow(_SQL["checkpoint"])
        if row is None or row["key_id"] == self._keys.current.id:
            return
        async with self._database.transaction(within=LONG_TRANSACTION_SECONDS) as connection:
            if not await connection.fetchval(_SQL["begin_purge"]):
                return
            row = await connection.fetchrow(_SQL["checkpoint"])
            checkpoint = checkpoint_of(row) if row is not None else None
            if checkpoint is not None and self._keys.is_genuine(checkpoint):
                await self._put_checkpoint(connection, self._keys.signed_anew(checkpoint))

    async def _put_checkpoint(self, connection: Connection, checkpoint: Checkpoint) -> None:
        await connection.execute(_SQL["delete_checkpoints"])
        await connection.execute(
            _SQL["add_checkpoint"],
            checkpoint.number,
            checkpoint.seal_mac,
            checkpoint.began_at,
            checkpoint.until,
            checkpoint.records,
            checkpoint.faults,
            checkpoint.unverified,
            checkpoint.key_id,
            checkpoint.mac,
        )

    def _faults(self, checkpoint: Checkpoint | None, seals: Sequence[Seal]) -> int:
        """How many links of this part of the chain don't hold."""
        faults = 0
        before = Head(0, BEGINNING)
        if checkpoint is not None:
            before = Head(checkpoint.number, checkpoint.seal_mac)
            faults += not self._keys.is_genuine(checkpoint)
        for seal in seals:
            follows = (seal.number, seal.previous_mac) == (before.number + 1, before.mac)
            is_forged = self._keys.knows(seal) and not self._keys.is_genuine(seal)
            faults += is_forged or not follows
            before = Head(seal.number, seal.mac)
        return faults


def _over(seals: Sequence[Seal], *, before: datetime, now: datetime) -> Sequence[Seal]:
    """The first of these whose time is over; not more than one transaction should delete.

    What is dated later than now is by a clock that was set ahead: it goes with what came after it.
    """
    over = records = 0
    for number, seal in enumerate(seals, start=1):
        records += seal.contents.records
        if over and records > _RECORDS_AT_ONCE:
            break
        if seal.contents.last_at > now:
            continue
        if seal.contents.last_at >= before:
            break
        over = number
    return seals[:over]
