"""Deletes audit records that are past their retention, by whole batches, oldest first.

Leaves a signed checkpoint, so that the rest still verifies. Faults in the deleted part stay known:
they are logged, counted in a metric and stated in the checkpoint. So is the number of batches that
could not be verified: the owner of the database can give forged batches the name of a lost key, and
any time.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.audit.batch_macs import INITIAL_MAC, AuditKeys, BatchMac, ChainHead, Checkpoint
from broker.clock import Clock, rfc3339
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.timeouts import LONG_TRANSACTION_SECONDS
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

IDLE_INTERVAL = timedelta(hours=1)
"""The pause after a run that left nothing to delete."""

EVERY_SECONDS = 15.0

_RUN_SECONDS = 5.0
_BATCHES_PER_TRANSACTION = 500
_RECORDS_PER_TRANSACTION = 10_000
_SQL = load_queries("broker.audit")


class AuditRetention:
    """Deletes records older than the retention period."""

    def __init__(
        self,
        *,
        database: Database,
        clocks: Sequence[Clock],
        metrics: Metrics,
        keys: AuditKeys,
        keep: timedelta | None,
    ) -> None:
        """With `keep` None nothing is deleted.

        The earliest of the clocks counts: one that is set ahead must not delete anything.
        """
        self._database = database
        self._clocks = clocks
        self._metrics = metrics
        self._keys = keys
        self._keep = keep
        self._not_before: datetime | None = None

    async def purge(self) -> None:
        """Delete what is due, for some seconds at most. Raises `StorageUnavailable`."""
        await self._sign_checkpoint_with_current_key()
        now = self._now()
        if self._keep is None or (self._not_before is not None and now < self._not_before):
            return
        loop = asyncio.get_running_loop()
        pause_at = loop.time() + _RUN_SECONDS
        while loop.time() < pause_at:
            if not await self.delete_portion(now - self._keep):
                self._not_before = now + IDLE_INTERVAL
                return

    def _now(self) -> datetime:
        return min(clock.now() for clock in self._clocks)

    async def delete_portion(self, before: datetime) -> bool:
        """Delete some records older than `before`; return True if there may be more."""
        async with self._database.transaction(within=LONG_TRANSACTION_SECONDS) as connection:
            if not await connection.fetchval(_SQL["begin_purge"]):
                return False
            rows = await connection.fetch(_SQL["oldest_batch_macs"], _BATCHES_PER_TRANSACTION)
            batches = _expired(list(map(BatchMac.from_row, rows)), before=before, now=self._now())
            if not batches:
                # Last, because they are slow to find among millions of old records in batches.
                deleted = await connection.execute(
                    _SQL["delete_records_without_batch"], before, _RECORDS_PER_TRANSACTION
                )
                return deleted != "DELETE 0"
            checkpoint = await self._delete(connection, batches)
        unverified = self._count_unverified(batches)
        self._metrics.audit_unverified.inc(unverified)
        logger.log(
            logging.WARNING if unverified else logging.INFO,
            "deleted audit records past their retention",
            extra={
                "event": "audit_records_deleted",
                "records": sum(batch.contents.records for batch in batches),
                "unverified_batches": unverified,
                "checkpoint": str(ChainHead(checkpoint.number, checkpoint.last_mac)),
                "until": rfc3339(checkpoint.until),
            },
        )
        return True

    async def _delete(self, connection: Connection, batches: Sequence[BatchMac]) -> Checkpoint:
        row = await connection.fetchrow(_SQL["checkpoint"])
        before = Checkpoint.from_row(row) if row is not None else None
        ids = [batch.contents.batch_id for batch in batches]
        deleted = {
            row["batch"]: row["records"]
            for row in await connection.fetch(_SQL["delete_records"], ids)
        }
        faults = self._count_faults(before, batches)
        faults += sum(
            deleted.get(batch.contents.batch_id, 0) != batch.contents.records for batch in batches
        )
        if faults:
            self._metrics.audit_faults.inc(faults)
            logger.error(
                "deleted the oldest part of the audit trail, which had faults",
                extra={
                    "event": "audit_faults_found",
                    "faults": faults,
                    "from": batches[0].number,
                    "to": batches[-1].number,
                },
            )
        await connection.execute(_SQL["delete_batch_macs"], batches[-1].number)
        if before is not None and not self._keys.is_genuine(before):
            # Nothing in it can be trusted.
            before = None
        checkpoint = self._checkpoint(before, batches, records=sum(deleted.values()), faults=faults)
        await self._put_checkpoint(connection, checkpoint)
        return checkpoint

    def _checkpoint(
        self, before: Checkpoint | None, batches: Sequence[BatchMac], *, records: int, faults: int
    ) -> Checkpoint:
        """Return the checkpoint for these batches and for those before them."""
        return self._keys.checkpoint(
            number=batches[-1].number,
            last_mac=batches[-1].mac,
            began_at=before.began_at if before else batches[0].contents.first_at,
            until=max(batch.contents.last_at for batch in batches),
            records=(before.records if before else 0) + records,
            faults=(before.faults if before else 0) + faults,
            unverified=(before.unverified if before else 0) + self._count_unverified(batches),
        )

    def _count_unverified(self, batches: Sequence[BatchMac]) -> int:
        """Count the batches that name a key that is not configured."""
        return sum(not self._keys.has_key_of(batch) for batch in batches)

    async def _sign_checkpoint_with_current_key(self) -> None:
        """Sign the checkpoint again with the first key while its old key is still configured.

        After that, a checkpoint signed with an unknown key must be a forgery, or the old key was
        removed too early.
        """
        row = await self._database.fetchrow(_SQL["checkpoint"])
        if row is None or row["key_id"] == self._keys.current.id:
            return
        async with self._database.transaction(within=LONG_TRANSACTION_SECONDS) as connection:
            if not await connection.fetchval(_SQL["begin_purge"]):
                return
            row = await connection.fetchrow(_SQL["checkpoint"])
            checkpoint = Checkpoint.from_row(row) if row is not None else None
            if checkpoint is not None and self._keys.is_genuine(checkpoint):
                await self._put_checkpoint(connection, self._keys.sign_again(checkpoint))

    async def _put_checkpoint(self, connection: Connection, checkpoint: Checkpoint) -> None:
        await connection.execute(_SQL["delete_checkpoints"])
        await connection.execute(
            _SQL["add_checkpoint"],
            checkpoint.number,
            checkpoint.last_mac,
            checkpoint.began_at,
            checkpoint.until,
            checkpoint.records,
            checkpoint.faults,
            checkpoint.unverified,
            checkpoint.key_id,
            checkpoint.mac,
        )

    def _count_faults(self, checkpoint: Checkpoint | None, batches: Sequence[BatchMac]) -> int:
        """Count the links of this part of the chain that are forged or out of place."""
        faults = 0
        before = ChainHead(0, INITIAL_MAC)
        if checkpoint is not None:
            before = ChainHead(checkpoint.number, checkpoint.last_mac)
            faults += not self._keys.is_genuine(checkpoint)
        for batch in batches:
            follows = (batch.number, batch.previous_mac) == (before.number + 1, before.mac)
            is_forged = self._keys.has_key_of(batch) and not self._keys.is_genuine(batch)
            faults += is_forged or not follows
            before = ChainHead(batch.number, batch.mac)
        return faults


def _expired(batches: Sequence[BatchMac], *, before: datetime, now: datetime) -> Sequence[BatchMac]:
    """Return the first batches that are older than `before`, no more than one transaction deletes.

    A batch dated in the future comes from a clock that was set ahead: it goes with the batches that
    follow it.
    """
    expired = records = 0
    for count, batch in enumerate(batches, start=1):
        records += batch.contents.records
        if expired and records > _RECORDS_PER_TRANSACTION:
            break
        if batch.contents.last_at > now:
            continue
        if batch.contents.last_at >= before:
            break
        expired = count
    return batches[:expired]
