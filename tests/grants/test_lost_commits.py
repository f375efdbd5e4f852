"""What is lost in a failover, told by what was known before and what the new primary has."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from broker.audit.keys import audit_keys
from broker.audit.trail import AuditTrail
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.database.driver import connect
from broker.database.shares import of_account
from broker.grants.account_changes import AccountChanges
from broker.grants.known_changes import KnownChange, KnownChanges
from broker.grants.lookups import TokenLookups
from broker.grants.lost_commits import LostCommits
from broker.grants.model import Grant, GrantStatus
from broker.grants.store import GrantStore
from broker.telemetry.metrics import Metrics
from tests.grants.test_store import KEY, consent
from tests.support.clock import ManualClock
from tests.support.waiting import eventually


class Examination:
    """Compares with a real table, and keeps what came of it."""

    def __init__(self, database: Database, store: GrantStore, clock: ManualClock) -> None:
        self.metrics = Metrics()
        self.revoked: list[UUID] = []
        self.known = KnownChanges(clock)
        self.before_revoking: Awaitable[object] | None = None
        self._store = store

        async def revoke(grant: Grant) -> Sequence[Grant]:
            if self.before_revoking is not None:
                before, self.before_revoking = self.before_revoking, None
                await before
            revoked = await store.revoke_unchanged(grant, origin="failover")
            self.revoked += [each.id for each in revoked]
            return revoked

        self.lost = LostCommits(
            database,
            AccountChanges(TokenLookups([KEY]), clock),
            revoke=revoke,
            settle=self.known.settle,
            audit=AuditTrail(database, clock, self.metrics, audit_keys([KEY])),
            metrics=self.metrics,
        )

    async def of(self, *known: KnownChange) -> dict[str, float]:
        """How much of each kind was lost."""
        self.lost.suspect(known)
        await self.lost.examine()
        return {
            sample.labels["kind"]: sample.value
            for family in self.metrics.lost_commits.collect()
            for sample in family.samples
        }

    async def status(self, user_id: str = "user-1") -> GrantStatus:
        (grant,) = await self._store.list(user_id)
        return grant.status


@pytest.fixture
def examination(database: Database, store: GrantStore, clock: ManualClock) -> Examination:
    return Examination(database, store, clock)


def known_of(grant: Grant, **changes: object) -> KnownChange:
    """What a process had heard of a grant."""
    known = KnownChange(
        grant.id,
        grant.user_id,
        grant.version,
        grant.updated_at,
        grant.status,
        grant.reason,
        grant.google_sub,
        grant.updated_at,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


async def test_what_is_as_it_was_known_is_not_lost(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    assert await examination.of(known_of(grant)) == {}
    (revoked,) = await store.revoke("user-1", None, origin="caller")
    assert await examination.of(known_of(revoked)) == {}


async def test_a_grant_that_is_gone_was_a_lost_consent(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    assert await examination.of(known_of(grant, grant_id=uuid4())) == {"consent": 1}


async def test_a_lost_revocation_is_restored(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    known = known_of(grant, version=2, status=GrantStatus.REVOKED, updated_at=clock.now())
    assert await examination.of(known) == {"revocation": 1}
    assert examination.revoked == [grant.id]
    assert await examination.status() is GrantStatus.REVOKED
    # Another replica that knows the same finds it in order.
    assert await examination.of(known) == {"revocation": 1}


async def test_a_lost_revocation_is_restored_though_another_replica_has_google_asked_anew(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    """One that had heard of the revocation by its number only."""
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    examination.before_revoking = database.execute("UPDATE grants SET version = version + 1")
    known = known_of(grant, version=2, status=GrantStatus.REVOKED, updated_at=clock.now())
    assert await examination.of(known) == {"revocation": 1}
    assert await examination.status() is GrantStatus.REVOKED


async def test_a_consent_given_since_is_not_revoked_for_a_lost_revocation(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    revoked_at = clock.now() + timedelta(seconds=1)
    clock.advance(timedelta(seconds=2))
    await store.connect(consent(clock))
    known = known_of(grant, version=7, status=GrantStatus.REVOKED, updated_at=revoked_at)
    assert await examination.of(known) == {}
    assert await examination.status() is GrantStatus.ACTIVE


async def test_a_grant_that_changed_since_it_was_read_is_not_revoked(
    store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    await store.connect(consent(clock))
    assert await store.revoke_unchanged(grant, origin="failover") == []


async def test_a_grant_that_changes_while_its_lock_is_waited_for_is_not_revoked(
    store: GrantStore, clock: ManualClock, database: Database, database_url: str
) -> None:
    grant = await store.connect(consent(clock))
    other = await connect(database_url)
    change = other.transaction()
    await change.start()
    await other.execute("UPDATE grants SET version = version + 1")
    revoking = asyncio.create_task(store.revoke_unchanged(grant, origin="failover"))

    async def waits() -> bool:
        return bool(
            await database.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    await eventually(waits)
    await change.commit()
    await other.close()
    assert await revoking == []


async def test_what_a_lost_security_event_erased_is_erased_again(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    known = known_of(
        grant,
        version=2,
        status=GrantStatus.REAUTHORIZATION_REQUIRED,
        reason="google_account_hijacked",
        updated_at=clock.now(),
    )
    assert await examination.of(known) == {"security_event": 1}
    row = await database.fetchrow("SELECT reason, sealed_refresh_token FROM grants")
    assert row is not None
    assert (row["reason"], row["sealed_refresh_token"]) == ("google_account_hijacked", None)


async def test_google_is_asked_anew_for_a_grant_that_is_back_at_an_earlier_version(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    grant = await store.connect(consent(clock))
    assert await examination.of(known_of(grant, version=3)) == {"change": 1}
    assert await database.fetchval("SELECT count(*) FROM access_tokens") == 0
    (now,) = await store.list("user-1")
    assert (now.status, now.version) == (GrantStatus.ACTIVE, 2)


async def test_a_change_that_has_the_number_of_a_lost_one_is_told_from_it(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    another = known_of(grant, changed_at=clock.now() - timedelta(days=1))
    assert await examination.of(another) == {"change": 1}
    (now,) = await store.list("user-1")
    assert now.version == grant.version


async def test_a_grant_whose_revocation_was_lost_is_not_read_until_it_is_restored(
    database: Database, store: GrantStore, examination: Examination, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    known = examination.known
    sealer = Sealer(local_sealing_keys([KEY]))
    reading = GrantStore(database, sealer, clock, keep_access_tokens=True, known=known)
    assert await reading.find(grant.user_id)
    known.note_own([replace(grant, version=grant.version + 1, status=GrantStatus.REVOKED)])
    for _ in ("before the failover is noticed", "after it"):
        with pytest.raises(StorageUnavailable):
            await reading.find(grant.user_id)
        assert await reading.find_many([grant.user_id, "nobody"]) == {"nobody": []}
        changes = known.take_all()
        if changes:
            lost = changes
    await examination.of(*lost)
    assert await reading.find(grant.user_id) == []
    assert await reading.find_many([grant.user_id]) == {grant.user_id: []}


@pytest.mark.parametrize("ending", ["revoked", "revoked, and lost", "erased, and lost"])
async def test_a_replica_from_before_the_end_of_a_grant_is_not_believed_after_a_failover(
    examination: Examination,
    store: GrantStore,
    clock: ManualClock,
    database: Database,
    ending: str,
) -> None:
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    known = examination.known
    end = replace(grant, version=2, status=GrantStatus.REVOKED, updated_at=clock.now())
    if ending == "erased, and lost":
        end = replace(
            end, status=GrantStatus.REAUTHORIZATION_REQUIRED, reason="google_account_hijacked"
        )
    if ending == "revoked":
        (end,) = await store.revoke(grant.user_id, None, origin="caller")
    known.note_own([end])
    at_replica = {grant.id: grant.version}
    lost = known.take_all()
    assert known.is_behind(grant.user_id, at_replica)
    await examination.of(*lost)
    assert known.is_behind(grant.user_id, at_replica)
    assert known.lacks_an_end(at_replica)
    # What the new primary has of it is believed.
    now = await database.fetchval("SELECT version FROM grants")
    assert not known.lacks_an_end({grant.id: now})


@pytest.mark.parametrize("lock", ["user user-0", "google account sub-0"])
async def test_one_whose_lock_somebody_keeps_keeps_no_lost_end_from_being_restored(
    examination: Examination,
    store: GrantStore,
    clock: ManualClock,
    database_url: str,
    lock: str,
) -> None:
    ends = []
    for number in range(3):
        grant = await store.connect(
            consent(clock, user_id=f"user-{number}", google_sub=f"sub-{number}")
        )
        ends.append(known_of(grant, version=2, status=GrantStatus.REVOKED))
    keeper = await connect(database_url)
    await keeper.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", lock)
    try:
        with pytest.raises(StorageBusy):
            await examination.of(*ends)
        for user in ("user-1", "user-2"):
            assert await examination.status(user) is GrantStatus.REVOKED
        assert await examination.status("user-0") is GrantStatus.ACTIVE
    finally:
        await keeper.close()
    await examination.lost.examine()
    assert await examination.status("user-0") is GrantStatus.REVOKED


async def test_what_is_erased_again_waits_for_its_account_without_a_connection(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    grant = await store.connect(consent(clock))
    known = known_of(
        grant,
        version=2,
        status=GrantStatus.REAUTHORIZATION_REQUIRED,
        reason="google_account_hijacked",
    )
    async with database.exclusively(of_account(grant.google_sub)):
        with pytest.raises(StorageBusy):
            await examination.of(known)
    await examination.lost.examine()
    assert await examination.status() is GrantStatus.REAUTHORIZATION_REQUIRED
