"""Lost commits are found by comparing known changes with the new primary."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from broker.audit.batch_macs import audit_keys
from broker.audit.trail import AuditTrail
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.database.driver import connect
from broker.database.shares import account_lock
from broker.grants.account_grants import AccountGrants
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.lost_commits import LostCommit, LostCommits, find_lost_commit
from broker.grants.model import Grant, GrantStatus
from broker.grants.recent_changes import GrantChange, RecentChanges
from broker.grants.store import GrantStore
from broker.telemetry.metrics import Metrics
from tests.grants.test_model import GRANT
from tests.grants.test_store import KEY, consent
from tests.support.clock import ManualClock
from tests.support.waiting import eventually


class Examination:
    """Compares with a real table, and records the results."""

    def __init__(self, database: Database, store: GrantStore, clock: ManualClock) -> None:
        self.metrics = Metrics()
        self.revoked: list[UUID] = []
        self.known = RecentChanges(clock)
        self.before_revoking: Awaitable[object] | None = None
        self._store = store

        async def revoke(grant: Grant) -> Sequence[Grant]:
            if self.before_revoking is not None:
                before, self.before_revoking = self.before_revoking, None
                await before
            revoked = await store.revoke_if_unchanged(grant, origin="failover")
            self.revoked += [each.id for each in revoked]
            return revoked

        self.lost = LostCommits(
            database,
            AccountGrants(TokenFingerprints([KEY]), clock),
            revoke=revoke,
            settle=self.known.settle,
            audit=AuditTrail(database, clock, self.metrics, audit_keys([KEY])),
            metrics=self.metrics,
        )

    async def of(self, *known: GrantChange) -> dict[str, float]:
        """Return the number of lost commits of each kind."""
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


def change_of(grant: Grant, **changes: object) -> GrantChange:
    """Return the change by which a process knew a grant."""
    known = GrantChange(
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


async def test_an_unchanged_grant_is_not_lost(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    assert await examination.of(change_of(grant)) == {}
    (revoked,) = await store.revoke("user-1", None, origin="caller")
    assert await examination.of(change_of(revoked)) == {}


async def test_a_missing_grant_is_a_lost_consent(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    assert await examination.of(change_of(grant, grant_id=uuid4())) == {"consent": 1}


async def test_a_lost_revocation_is_restored(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    known = change_of(grant, version=2, status=GrantStatus.REVOKED, updated_at=clock.now())
    assert await examination.of(known) == {"revocation": 1}
    assert examination.revoked == [grant.id]
    assert await examination.status() is GrantStatus.REVOKED
    # Another replica that knows the same change finds no loss.
    assert await examination.of(known) == {"revocation": 1}


async def test_a_lost_revocation_is_restored_although_another_replica_requires_a_refresh(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    """The other replica knew only the version of the revocation."""
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    examination.before_revoking = database.execute("UPDATE grants SET version = version + 1")
    known = change_of(grant, version=2, status=GrantStatus.REVOKED, updated_at=clock.now())
    assert await examination.of(known) == {"revocation": 1}
    assert await examination.status() is GrantStatus.REVOKED


async def test_a_later_consent_is_not_revoked_for_a_lost_revocation(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    revoked_at = clock.now() + timedelta(seconds=1)
    clock.advance(timedelta(seconds=2))
    await store.connect(consent(clock))
    known = change_of(grant, version=7, status=GrantStatus.REVOKED, updated_at=revoked_at)
    assert await examination.of(known) == {}
    assert await examination.status() is GrantStatus.ACTIVE


async def test_a_changed_grant_is_not_revoked(store: GrantStore, clock: ManualClock) -> None:
    grant = await store.connect(consent(clock))
    await store.connect(consent(clock))
    assert await store.revoke_if_unchanged(grant, origin="failover") == []


async def test_a_grant_that_changes_during_the_wait_for_its_lock_is_not_revoked(
    store: GrantStore, clock: ManualClock, database: Database, database_url: str
) -> None:
    grant = await store.connect(consent(clock))
    other = await connect(database_url)
    change = other.transaction()
    await change.start()
    await other.execute("UPDATE grants SET version = version + 1")
    revoking = asyncio.create_task(store.revoke_if_unchanged(grant, origin="failover"))

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


async def test_the_tokens_of_a_lost_security_event_are_erased_again(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    known = change_of(
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


async def test_a_grant_back_at_an_earlier_version_requires_a_refresh(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    grant = await store.connect(consent(clock))
    assert await examination.of(change_of(grant, version=3)) == {"change": 1}
    assert await database.fetchval("SELECT count(*) FROM access_tokens") == 0
    (now,) = await store.list("user-1")
    assert (now.status, now.version) == (GrantStatus.ACTIVE, 2)


async def test_a_change_with_the_version_of_a_lost_one_is_distinguished(
    examination: Examination, store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    another = change_of(grant, changed_at=clock.now() - timedelta(days=1))
    assert await examination.of(another) == {"change": 1}
    (now,) = await store.list("user-1")
    assert now.version == grant.version


async def test_a_grant_with_a_lost_revocation_is_not_served_until_it_is_restored(
    database: Database, store: GrantStore, examination: Examination, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    known = examination.known
    sealer = Sealer(local_sealing_keys([KEY]))
    reading = GrantStore(database, sealer, clock, keep_access_tokens=True, recent_changes=known)
    assert await reading.find(grant.user_id)
    known.record_own([replace(grant, version=grant.version + 1, status=GrantStatus.REVOKED)])
    for _ in ("before the failover is noticed", "after it"):
        with pytest.raises(StorageUnavailable):
            await reading.find(grant.user_id)
        assert await reading.find_many([grant.user_id, "nobody"]) == {"nobody": []}
        changes = known.start_new_timeline()
        if changes:
            lost = changes
    await examination.of(*lost)
    assert await reading.find(grant.user_id) == []
    assert await reading.find_many([grant.user_id]) == {grant.user_id: []}


@pytest.mark.parametrize("ending", ["revoked", "revoked, and lost", "erased, and lost"])
async def test_a_replica_from_before_a_deactivation_is_rejected_after_a_failover(
    examination: Examination,
    store: GrantStore,
    clock: ManualClock,
    database: Database,
    ending: str,
) -> None:
    grant = await store.connect(consent(clock))
    clock.advance(timedelta(seconds=1))
    known = examination.known
    deactivation = replace(grant, version=2, status=GrantStatus.REVOKED, updated_at=clock.now())
    if ending == "erased, and lost":
        deactivation = replace(
            deactivation,
            status=GrantStatus.REAUTHORIZATION_REQUIRED,
            reason="google_account_hijacked",
        )
    if ending == "revoked":
        (deactivation,) = await store.revoke(grant.user_id, None, origin="caller")
    known.record_own([deactivation])
    at_replica = {grant.id: grant.version}
    lost = known.start_new_timeline()
    assert known.is_behind(grant.user_id, at_replica)
    await examination.of(*lost)
    assert known.is_behind(grant.user_id, at_replica)
    assert known.lacks_deactivation(at_replica)
    # The new primary's own version is accepted.
    now = await database.fetchval("SELECT version FROM grants")
    assert not known.lacks_deactivation({grant.id: now})


@pytest.mark.parametrize("lock", ["user user-0", "google account sub-0"])
async def test_a_held_lock_does_not_delay_the_restoration_of_other_revocations(
    examination: Examination,
    store: GrantStore,
    clock: ManualClock,
    database_url: str,
    lock: str,
) -> None:
    revocations = []
    for number in range(3):
        grant = await store.connect(
            consent(clock, user_id=f"user-{number}", google_sub=f"sub-{number}")
        )
        revocations.append(change_of(grant, version=2, status=GrantStatus.REVOKED))
    holder = await connect(database_url)
    await holder.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", lock)
    try:
        with pytest.raises(StorageBusy):
            await examination.of(*revocations)
        for user in ("user-1", "user-2"):
            assert await examination.status(user) is GrantStatus.REVOKED
        assert await examination.status("user-0") is GrantStatus.ACTIVE
    finally:
        await holder.close()
    await examination.lost.examine()
    assert await examination.status("user-0") is GrantStatus.REVOKED


async def test_erasing_again_waits_for_the_account_without_a_connection(
    examination: Examination, store: GrantStore, clock: ManualClock, database: Database
) -> None:
    grant = await store.connect(consent(clock))
    known = change_of(
        grant,
        version=2,
        status=GrantStatus.REAUTHORIZATION_REQUIRED,
        reason="google_account_hijacked",
    )
    async with database.exclusively(account_lock(grant.google_sub)):
        with pytest.raises(StorageBusy):
            await examination.of(known)
    await examination.lost.examine()
    assert await examination.status() is GrantStatus.REAUTHORIZATION_REQUIRED


# ---- the comparison itself, without a database

_AT = GRANT.updated_at
_BEFORE, _AFTER = _AT - timedelta(seconds=1), _AT + timedelta(seconds=1)
_REVOKED = replace(GRANT, status=GrantStatus.REVOKED)
_HIJACKED = replace(
    GRANT, status=GrantStatus.REAUTHORIZATION_REQUIRED, reason="google_account_hijacked"
)


def _known(grant: Grant, **changes: object) -> GrantChange:
    return change_of(grant, **{"updated_at": _AFTER, **changes})


@pytest.mark.parametrize(
    ("known", "grant", "changed_at", "expected"),
    [
        (_known(GRANT), None, None, LostCommit.CONSENT),
        (_known(_REVOKED), None, None, LostCommit.REVOCATION),
        (_known(GRANT), GRANT, _AT, None),
        (_known(_REVOKED), GRANT, _AT, LostCommit.REVOCATION),
        (_known(_REVOKED), _REVOKED, _AT, None),
        (_known(_REVOKED, updated_at=_BEFORE), GRANT, _AT, None),
        (_known(_HIJACKED), GRANT, _AT, LostCommit.SECURITY_EVENT),
        (_known(_HIJACKED), _HIJACKED, _AT, None),
        (_known(_HIJACKED), _REVOKED, _AT, None),
        (_known(GRANT, version=GRANT.version + 1), GRANT, _AT, LostCommit.CHANGE),
        (_known(GRANT, version=GRANT.version - 1), GRANT, _AT, None),
        (_known(GRANT, changed_at=_BEFORE), GRANT, _AT, LostCommit.CHANGE),
        (_known(GRANT, changed_at=_AT), GRANT, _AT, None),
        (_known(GRANT, version=GRANT.version - 1, changed_at=_BEFORE), GRANT, _AT, None),
        (_known(GRANT, version=9, updated_at=None), GRANT, _AT, LostCommit.CHANGE),
    ],
    ids=[
        "the grant is gone",
        "the grant and its revocation are gone",
        "unchanged",
        "revoked grant is live again",
        "revoked by another replica",
        "consented again since the revocation",
        "hijacked grant is active again",
        "tokens are erased",
        "revoked after the security event",
        "back at an earlier version",
        "changed since",
        "another change with the same version",
        "the same change",
        "changed since, with another timestamp",
        "known by a notification",
    ],
)
def test_a_lost_commit_is_found_by_comparison(
    known: GrantChange,
    grant: Grant | None,
    changed_at: datetime | None,
    expected: LostCommit | None,
) -> None:
    assert find_lost_commit(known, grant, changed_at) is expected
