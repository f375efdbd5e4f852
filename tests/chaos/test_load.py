"""The checks of `Record`: what passes, and what fails."""

from dataclasses import replace

import pytest

from tests.chaos.fleet import User
from tests.chaos.load import Answer, Record

ADA = User("ada", "1")
GOOD = Answer(ADA, 0, 77, began=100.0, ended=100.1, status=200, expires_at=110.0)
REFUSED = Answer(ADA, 0, 77, began=111.0, ended=111.1, status=503, code="google_unavailable")
TOO_SOON = replace(REFUSED, began=105.0, ended=105.1)
ALLOWED = {"google_unavailable"}


def test_a_refusal_after_the_token_expired_passes() -> None:
    Record([GOOD, REFUSED]).assert_sound(allowed=ALLOWED)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [GOOD, TOO_SOON],
        [GOOD, replace(TOO_SOON, replica=1)],
        [GOOD, replace(REFUSED, code="reauthorization_required")],
        [GOOD, replace(REFUSED, status=500, code=None)],
        [GOOD, replace(GOOD, status=None)],
        [replace(GOOD, fault="it is another user's")],
    ],
    ids=[
        "no answers",
        "valid token refused",
        "elsewhere",
        "not allowed",
        "500",
        "broken",
        "wrong token",
    ],
)
def test_a_wrong_answer_fails(answers: list[Answer]) -> None:
    with pytest.raises(AssertionError):
        Record(answers).assert_sound(allowed=ALLOWED)


def test_without_a_database_a_replica_is_expected_to_know_its_own_tokens_only() -> None:
    elsewhere, restarted = replace(TOO_SOON, replica=1), replace(TOO_SOON, incarnation=78)
    Record([GOOD, elsewhere, restarted]).assert_sound(allowed=ALLOWED, among_replicas=False)
    with pytest.raises(AssertionError):
        Record([GOOD, TOO_SOON]).assert_sound(allowed=ALLOWED, among_replicas=False)
