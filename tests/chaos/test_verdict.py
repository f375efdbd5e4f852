"""The checks of journeys: what passes, and what fails."""

from dataclasses import replace

import pytest

from tests.chaos.fleet import User
from tests.chaos.journeys import Change, Journey
from tests.chaos.load import Answer
from tests.chaos.verdict import (
    PROPAGATION_SECONDS,
    Row,
    assert_answers_correct,
    lost_changes,
    tokens_after_the_end,
)

ADA = User("ada", "1")
CONSENT = Change("consent", 100.0, 101.0, 200)
REVOCATION = Change("revocation", 110.0, 111.0, 204)
EVENT = Change("event", 110.0, 111.0, 202)
TOKEN = Answer(ADA, 0, 77, began=105.0, ended=105.1, status=200, expires_at=200.0)
NO_GRANT = replace(TOKEN, status=404, code="grant_not_found")
LATE = 111.0 + PROPAGATION_SECONDS + 0.1


def journey(*changes: Change, polls: list[Answer] | None = None) -> Journey:
    return Journey(ADA, "ada@example.com", list(changes), polls or [])


@pytest.mark.parametrize("end", [REVOCATION, EVENT], ids=["revocation", "event"])
def test_a_token_is_wrong_a_second_after_the_end_was_acknowledged(end: Change) -> None:
    in_time = replace(TOKEN, began=LATE - 0.2, ended=LATE + 3)
    late_token = replace(TOKEN, began=LATE, ended=LATE)
    found = tokens_after_the_end([journey(CONSENT, end, polls=[TOKEN, in_time, late_token])])
    assert [each.answer for each in found] == [late_token]


def test_without_an_acknowledgement_no_token_is_wrong() -> None:
    refused = replace(REVOCATION, status=503)
    polls = [replace(TOKEN, began=LATE, ended=LATE)]
    assert not tokens_after_the_end([journey(CONSENT, refused, polls=polls)])


@pytest.mark.parametrize(
    ("changes", "row", "is_lost"),
    [
        ([CONSENT], Row("active", ""), False),
        ([CONSENT], None, True),
        ([CONSENT, REVOCATION], Row("revoked", ""), False),
        ([CONSENT, REVOCATION], Row("active", ""), True),
        ([CONSENT, REVOCATION], None, True),
        ([CONSENT, EVENT], Row("reauthorization_required", "google_account_hijacked"), False),
        ([CONSENT, EVENT], Row("active", ""), True),
        ([replace(CONSENT, status=503)], None, False),
    ],
)
def test_an_acknowledged_change_that_is_missing_is_lost(
    changes: list[Change], row: Row | None, is_lost: bool
) -> None:
    grants = {} if row is None else {ADA.id: row}
    assert bool(lost_changes([journey(*changes)], grants)) is is_lost


@pytest.mark.parametrize(
    "wrong",
    [
        NO_GRANT,
        replace(TOKEN, status=409, code="reauthorization_required"),
        replace(TOKEN, fault="it is another user's"),
        replace(TOKEN, began=106.0, ended=106.1, status=503, code="storage_unavailable"),
    ],
    ids=["404", "409", "wrong token", "valid token refused"],
)
def test_a_wrong_answer_for_a_connected_user_fails(wrong: Answer) -> None:
    assert_answers_correct([journey(CONSENT, polls=[TOKEN])])
    with pytest.raises(AssertionError):
        assert_answers_correct([journey(CONSENT, polls=[TOKEN, wrong])])


def test_a_refusal_passes_once_the_end_was_requested() -> None:
    polls = [TOKEN, replace(NO_GRANT, began=110.5, ended=110.6)]
    stayed = journey(CONSENT, polls=[TOKEN])
    assert_answers_correct([stayed, journey(CONSENT, REVOCATION, polls=polls)])
