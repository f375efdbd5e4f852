"""What is held is bounded, whoever comes; and what came late is looked after all the same."""

from datetime import timedelta
from typing import cast
from uuid import uuid4

from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.tokens.ahead import RefreshAhead
from broker.tokens.held import HeldToken, HeldTokens, Watch
from broker.tokens.refresher import Refresher
from tests.support.clock import ManualClock

SCOPE = "https://www.googleapis.com/auth/calendar.readonly"
HOUR = timedelta(hours=1)


def held_token(clock: ManualClock, *, left: timedelta = HOUR) -> HeldToken:
    now = clock.now()
    grant = Grant(
        id=uuid4(),
        user_id="user-1",
        google_sub="1",
        email="ada@example.com",
        client_id="client",
        scopes=(SCOPE,),
        status=GrantStatus.ACTIVE,
        reason=None,
        is_default=True,
        version=1,
        connected_at=now,
        updated_at=now,
        last_used_at=None,
    )
    return HeldToken(grant, AccessToken(Secret("ya29.x"), (SCOPE,), now + left - HOUR, now + left))


def time_table(held: HeldTokens, clock: ManualClock) -> RefreshAhead:
    """Without anything behind it: a refresh that begins here would fail."""
    grants = cast(GrantStore, None)
    return RefreshAhead(held=held, grants=grants, refresher=cast(Refresher, None), clock=clock)


def test_users_who_came_once_leave_the_time_table_with_the_memory(clock: ManualClock) -> None:
    held = HeldTokens(users_at_most=10)
    ahead = time_table(held, clock)
    held.on_held = ahead.plan
    for number in range(5_000):
        held.keep(f"user-{number}", SCOPE, held_token(clock), Watch())
    assert len(held) == 10
    assert len(ahead) <= 2_000


async def test_a_token_that_is_idle_when_due_is_looked_at_again(clock: ManualClock) -> None:
    ahead = time_table(HeldTokens(), clock)
    ahead.plan("user-1", SCOPE, held_token(clock, left=timedelta(minutes=5)))
    await ahead.round()
    assert len(ahead) == 1


async def test_a_token_that_expired_idle_is_dropped(clock: ManualClock) -> None:
    ahead = time_table(HeldTokens(), clock)
    ahead.plan("user-1", SCOPE, held_token(clock))
    clock.advance(timedelta(hours=2))
    await ahead.round()
    assert len(ahead) == 0
