"""What is kept of the changes heard of, and which answer of a database lacks one."""

from datetime import timedelta
from uuid import uuid4

import pytest

from broker.grants import known_changes
from broker.grants.known_changes import KEPT, KnownChanges
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
