"""Recent changes of grants, and which answers of a database lack one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from broker.grants import recent_changes
from broker.grants.model import Grant, GrantStatus
from broker.grants.recent_changes import RETENTION, GrantChange, RecentChanges
from tests.support.clock import ManualClock

USER = "user-1"


@pytest.fixture
def recent(clock: ManualClock) -> RecentChanges:
    return RecentChanges(clock)


def test_an_answer_is_behind_if_it_lacks_a_known_grant_or_version(
    recent: RecentChanges,
) -> None:
    grant_id = uuid4()
    assert not recent.is_behind(USER, {})
    recent.record_version(USER, grant_id, 2)
    assert recent.is_behind(USER, {})
    assert recent.is_behind(USER, {grant_id: 1})
    assert not recent.is_behind(USER, {grant_id: 2})
    assert not recent.is_behind("user-2", {})


def _record_own(recent: RecentChanges, clock: ManualClock, status: GrantStatus) -> UUID:
    """Record the second version of a grant as this process's own commit."""
    grant = Grant(
        id=uuid4(),
        user_id=USER,
        google_sub="108",
        email="ada@example.com",
        client_id="c",
        scopes=(),
        status=status,
        reason=None,
        is_default=True,
        version=2,
        connected_at=clock.now(),
        updated_at=clock.now(),
        last_used_at=None,
    )
    recent.record_own([grant])
    return grant.id


@pytest.mark.parametrize("status", [GrantStatus.REVOKED, GrantStatus.REAUTHORIZATION_REQUIRED])
def test_an_answer_from_before_a_deactivation_lacks_it(
    recent: RecentChanges, clock: ManualClock, status: GrantStatus
) -> None:
    grant_id = _record_own(recent, clock, status)
    assert recent.lacks_deactivation({grant_id: 1})
    assert not recent.lacks_deactivation({grant_id: 2})
    assert not recent.lacks_deactivation({uuid4(): 1})


def test_after_a_failover_no_version_of_a_deactivated_grant_counts_until_settled(
    recent: RecentChanges, clock: ManualClock
) -> None:
    revoked = _record_own(recent, clock, GrantStatus.REVOKED)
    alive = _record_own(recent, clock, GrantStatus.ACTIVE)
    changes = {change.grant_id: change for change in recent.start_new_timeline()}
    # The new primary gives the version to another change.
    assert recent.lacks_deactivation({revoked: 2})
    assert not recent.lacks_deactivation({alive: 1})
    recent.settle(changes[revoked], None)
    assert not recent.lacks_deactivation({revoked: 2})


def test_changes_from_before_a_failover_detect_a_lagging_replica_until_settled(
    recent: RecentChanges, clock: ManualClock
) -> None:
    alive = _record_own(recent, clock, GrantStatus.ACTIVE)
    (change,) = recent.start_new_timeline()
    assert recent.is_behind(USER, {})
    assert recent.is_behind(USER, {alive: 1})
    # The consent is lost: the replica may lack it, as the primary does.
    recent.settle(change, None)
    assert not recent.is_behind(USER, {})


def test_a_grant_lost_with_its_revocation_does_not_come_back_from_a_replica(
    recent: RecentChanges, clock: ManualClock
) -> None:
    revoked = _record_own(recent, clock, GrantStatus.REVOKED)
    (change,) = recent.start_new_timeline()
    recent.settle(change, None)
    assert recent.lacks_deactivation({revoked: 1})
    assert not recent.is_behind(USER, {})


def test_each_version_is_reported_once(recent: RecentChanges) -> None:
    reported: list[int] = []
    recent.subscribe(lambda _user, _grant, version: reported.append(version))
    grant_id = uuid4()
    for version in (1, 1, 3, 2, 3):
        recent.record_version(USER, grant_id, version)
    assert reported == [1, 3]


def test_a_change_is_known_for_ten_minutes(recent: RecentChanges, clock: ManualClock) -> None:
    first = uuid4()
    recent.record_version(USER, first, 1)
    clock.advance(RETENTION)
    recent.record_version("user-2", uuid4(), 1)
    assert recent.is_behind(USER, {})
    clock.advance(timedelta(seconds=1))
    recent.record_version("user-2", uuid4(), 1)
    assert not recent.is_behind(USER, {})


def test_the_number_of_changes_is_bounded(
    recent: RecentChanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent_changes, "_MAX_CHANGES", 3)
    for number in range(5):
        recent.record_version(f"user-{number}", uuid4(), 1)
    assert [recent.is_behind(f"user-{number}", {}) for number in range(5)] == [False] * 2 + [
        True
    ] * 3


_AT = datetime(2026, 1, 1, tzinfo=UTC)


def _change(
    version: int, status: GrantStatus | None = None, *, stamped: bool = False
) -> GrantChange:
    changed_at = _AT if stamped else None
    return GrantChange(UUID(int=1), USER, version, _AT, status=status, changed_at=changed_at)


@pytest.mark.parametrize(
    ("change", "known", "expected"),
    [
        (_change(2), _change(1, GrantStatus.ACTIVE, stamped=True), True),
        (_change(1, GrantStatus.ACTIVE, stamped=True), _change(2), False),
        (_change(1), _change(1), False),
        (_change(1, GrantStatus.REVOKED), _change(1), True),
        (_change(1, GrantStatus.REVOKED, stamped=True), _change(1, GrantStatus.REVOKED), True),
        (_change(1), _change(1, GrantStatus.REVOKED), False),
        (_change(1, GrantStatus.REVOKED), _change(1, GrantStatus.REVOKED, stamped=True), False),
    ],
    ids=[
        "a later version",
        "an earlier version",
        "the same",
        "with a status",
        "with a timestamp",
        "without the status",
        "without the timestamp",
    ],
)
def test_a_later_version_or_more_details_supersede(
    change: GrantChange, known: GrantChange, expected: bool
) -> None:
    assert change.supersedes(known) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, True),
        (GrantStatus.ACTIVE, False),
        (GrantStatus.REVOKED, True),
        (GrantStatus.REAUTHORIZATION_REQUIRED, True),
    ],
)
def test_a_change_may_deactivate_unless_the_grant_is_known_to_be_active(
    status: GrantStatus | None, expected: bool
) -> None:
    assert _change(2, status).may_deactivate is expected
