"""What a reconnection requests: tables, without a database."""

from typing import Any, cast
from uuid import UUID

import pytest

from broker.callers.model import Caller
from broker.connections.reconnection import Reconnection
from broker.connections.visits import Visit
from broker.consent.link_policies import LinkPolicies
from broker.grants.model import GrantStatus
from tests.consent.samples import IDENTITY, NOW, a_caller, a_grant
from tests.support.scopes import CALENDAR_READONLY, DRIVE_READONLY, TASKS_READONLY

VISIT = Visit(
    id=UUID(int=7),
    caller="calendar-sync",
    user_id="alice",
    return_to=None,
    link_expires_at=NOW,
    is_opened=True,
    ends_at=NOW,
)


def reconnection(caller: Caller | None) -> Reconnection:
    """A reconnection that can decide, but neither store nor record."""
    callers = {} if caller is None else {caller.name: caller}
    unused = cast(Any, None)
    return Reconnection(
        policies=LinkPolicies(callers.get, (*IDENTITY, CALENDAR_READONLY, TASKS_READONLY)),
        links=unused,
        tokens=unused,
        audit=unused,
        redirect_uri="https://app.example.com/auth/google/callback",
        return_to="https://app.example.com/connections",
        google_origins=unused,
    )


@pytest.mark.parametrize(
    ("status", "had", "requested"),
    [
        (GrantStatus.ACTIVE, [CALENDAR_READONLY], None),
        (GrantStatus.PENDING_CONFIRMATION, [CALENDAR_READONLY], None),
        (GrantStatus.REAUTHORIZATION_REQUIRED, [CALENDAR_READONLY], [CALENDAR_READONLY]),
        (
            GrantStatus.REVOKED,
            [CALENDAR_READONLY, TASKS_READONLY],
            [CALENDAR_READONLY, TASKS_READONLY],
        ),
        (GrantStatus.REVOKED, [CALENDAR_READONLY, DRIVE_READONLY], [CALENDAR_READONLY]),
        (GrantStatus.REVOKED, [DRIVE_READONLY], None),
        (GrantStatus.REVOKED, [], []),
    ],
    ids=[
        "active",
        "pending",
        "broken",
        "revoked",
        "one scope is no longer allowed",
        "no scope is allowed any more",
        "identity only",
    ],
)
def test_the_requested_scopes(
    status: GrantStatus, had: list[str], requested: list[str] | None
) -> None:
    scopes = reconnection(a_caller()).scopes(VISIT, a_grant(*had, status=status))
    assert scopes == (() if requested is None else (*IDENTITY, *requested))


@pytest.mark.parametrize(
    "caller",
    [
        None,
        a_caller(permissions=frozenset()),
        a_caller(users=("bob",)),
        a_caller(require_confirmation=True),
        a_caller(scopes=(TASKS_READONLY,)),
    ],
    ids=["unknown", "permission", "user", "confirmation", "scope"],
)
def test_what_the_caller_may_not_request_is_not_offered(caller: Caller | None) -> None:
    broken = a_grant(CALENDAR_READONLY, status=GrantStatus.REAUTHORIZATION_REQUIRED)
    assert reconnection(caller).scopes(VISIT, broken) == ()
