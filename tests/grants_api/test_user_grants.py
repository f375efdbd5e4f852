"""Which pending consents a list of grants shows: a table, without a database."""

from datetime import timedelta
from uuid import UUID

import pytest

from broker.grants.model import Grant, GrantStatus
from broker.grants.pending_consents.model import PendingConsent
from broker.grants_api.user_grants import with_pending
from tests.consent.samples import NOW, SUB, a_grant, a_pending_consent

OTHER_SUB = "2002"
BEFORE = NOW - timedelta(days=1)
ACTIVE = a_grant(connected_at=BEFORE)
BROKEN = a_grant(connected_at=BEFORE, status=GrantStatus.REAUTHORIZATION_REQUIRED)
REVOKED = a_grant(connected_at=BEFORE, status=GrantStatus.REVOKED)
PENDING = a_pending_consent()
OLDER = a_pending_consent(link_id=UUID(int=4), created_at=NOW - timedelta(minutes=1))
OF_OTHER_ACCOUNT = a_pending_consent(link_id=UUID(int=5), google_sub=OTHER_SUB)


@pytest.mark.parametrize(
    ("grants", "pending", "listed"),
    [
        ([], [], []),
        ([ACTIVE], [], [(SUB, "active")]),
        ([], [PENDING], [(SUB, "pending_confirmation")]),
        ([ACTIVE], [PENDING], [(SUB, "active")]),
        ([BROKEN], [PENDING], [(SUB, "pending_confirmation")]),
        ([REVOKED], [PENDING], [(SUB, "pending_confirmation")]),
        (
            [ACTIVE],
            [OF_OTHER_ACCOUNT],
            [(SUB, "active"), (OTHER_SUB, "pending_confirmation")],
        ),
    ],
    ids=[
        "nothing",
        "no pending consent",
        "pending only",
        "beside an active grant",
        "instead of a broken grant",
        "instead of a revoked grant",
        "of another account",
    ],
)
def test_the_list(
    grants: list[Grant], pending: list[PendingConsent], listed: list[tuple[str, str]]
) -> None:
    shown = with_pending(grants, pending)
    assert [(grant.google_sub, grant.status.value) for grant in shown] == listed


def test_of_several_pending_consents_of_an_account_the_newest_is_shown() -> None:
    (shown,) = with_pending([], [PENDING, OLDER])
    assert shown.id == PENDING.link_id


def test_the_oldest_connection_comes_first() -> None:
    newer = a_grant(id=UUID(int=9), google_sub=OTHER_SUB, connected_at=NOW)
    assert with_pending([newer, ACTIVE], []) == [ACTIVE, newer]
