"""What is kept of the changes heard of, and which answer of a database lacks one."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from broker.grants import known_changes
from broker.grants.known_changes import KEPT, KnownChanges
from broker.grants.model import Grant, GrantStatus
from tests.support.clock import ManualClock

USER = "user-1"


@pytest.fixture
def known(clock: ManualClock) -> KnownChanges:
    return KnownChanges(clock)


def test_an_answer_is_behind_without_a_known_grant_or_with_an_earlier_version_of_it(
    known: KnownChanges,
) -> None:
    grant_id = uuid4()
    assert not known.is_behind(USER, {})
    known.note_version(USER, grant_id, 2)
    assert known.is_behind(USER, {})
    assert known.is_behind(USER, {grant_id: 1})
    assert not known.is_behind(USER, {grant_id: 2})
    assert not known.is_behind("user-2", {})


def _end(known: KnownChanges, clock: ManualClock, status: GrantStatus) -> UUID:
    """A second version of a grant, of which this process knows that it ended it."""
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
    known.note_own([grant])
    return grant.id


@pytest.mark.parametrize("status", [GrantStatus.REVOKED, GrantStatus.REAUTHORIZATION_REQUIRED])
def test_an_answer_from_before_the_end_of_a_grant_lacks_it(
    known: KnownChanges, clock: ManualClock, status: GrantStatus
) -> None:
    grant_id = _end(known, clock, status)
    assert known.lacks_an_end({grant_id: 1})
    assert not known.lacks_an_end({grant_id: 2})
    assert not known.lacks_an_end({uuid4(): 1})


def test_after_a_failover_no_version_of_an_ended_grant_is_believed_until_that_is_settled(
    known: KnownChanges, clock: ManualClock
) -> None:
    ended = _end(known, clock, GrantStatus.REVOKED)
    alive = _end(known, clock, GrantStatus.ACTIVE)
    changes = {change.grant_id: change for change in known.take_all()}
    # The new primary gives the version to another change.
    assert known.lacks_an_end({ended: 2})
    assert not known.lacks_an_end({alive: 1})
    known.settle(changes[ended], None)
    assert not known.lacks_an_end({ended: 2})


def test_what_was_known_before_a_failover_tells_a_replica_that_is_behind_until_it_is_settled(
    known: KnownChanges, clock: ManualClock
) -> None:
    alive = _end(known, clock, GrantStatus.ACTIVE)
    (change,) = known.take_all()
    assert known.is_behind(USER, {})
    assert known.is_behind(USER, {alive: 1})
    # The consent is lost: what the primary lacks, the replica may lack.
    known.settle(change, None)
    assert not known.is_behind(USER, {})


def test_a_grant_that_was_lost_with_its_end_does_not_come_back_from_a_replica(
    known: KnownChanges, clock: ManualClock
) -> None:
    revoked = _end(known, clock, GrantStatus.REVOKED)
    (change,) = known.take_all()
    known.settle(change, None)
    assert known.lacks_an_end({revoked: 1})
    assert not known.is_behind(USER, {})


def test_each_version_is_passed_on_once(known: KnownChanges) -> None:
    passed: list[int] = []
    known.subscribe(lambda _user, _grant, version: passed.append(version))
    grant_id = uuid4()
    for version in (1, 1, 3, 2, 3):
        known.note_version(USER, grant_id, version)
    assert passed == [1, 3]


def test_a_change_is_known_for_ten_minutes_and_no_longer(
    known: KnownChanges, clock: ManualClock
) -> None:
    first = uuid4()
    known.note_version(USER, first, 1)
    clock.advance(KEPT)
    known.note_version("user-2", uuid4(), 1)
    assert known.is_behind(USER, {})
    clock.advance(timedelta(seconds=1))
    known.note_version("user-2", uuid4(), 1)
    assert not known.is_behind(USER, {})


def test_no_more_is_kept_than_a_bounded_number(
    known: KnownChanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_changes, "_KNOWN_AT_MOST", 3)
    for number in range(5):
        known.note_version(f"user-{number}", uuid4(), 1)
    assert [known.is_behind(f"user-{number}", {}) for number in range(5)] == [False] * 2 + [
        True
    ] * 3
