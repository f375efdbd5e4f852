"""What is held is bounded, whoever comes; and what came late is looked after all the same."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from bench.filling import CALENDAR, sample_grant
from bench.holding import CALLER, Holding, bytes_each
from broker.grants.model import AccessToken
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.proactive_refresh import RefreshAhead
from broker.tokens.cache.token_cache import HeldTokens, TokenRequest, Watch
from broker.tokens.refresh.refresher import Refresher
from tests.support.clock import ManualClock

HOUR = timedelta(hours=1)
EMAIL = "https://www.googleapis.com/auth/userinfo.email"


def held_token(
    clock: ManualClock,
    user_id: str = "user-1",
    *,
    left: timedelta = HOUR,
    scopes: tuple[str, ...] = (CALENDAR,),
) -> HeldToken:
    now = clock.now()
    token = AccessToken(Secret("ya29.x"), scopes, now + left - HOUR, now + left)
    return HeldToken(sample_grant(user_id, now), token)


def of_same_grant(token: HeldToken, clock: ManualClock, *, later: int = 0, **is_: Any) -> HeldToken:
    """Another token of the same grant, `later` versions on."""
    other = held_token(clock, token.user_id, **is_)
    other.grant_bytes = token.grant_bytes
    other.grant_version = token.grant_version + later
    return other


def keep(held: HeldTokens, token: HeldToken) -> TokenRequest:
    """Hold a token, with the question that its user's first request asks."""
    held.keep(token.user_id, CALENDAR, token, Watch())
    request = TokenRequest(token.user_id, scopes=None, account=None, min_ttl=60)
    held.keep_answer(CALLER, request, token, target=_target(token.user_id))
    return request


def _target(user_id: str) -> bytes:
    return f"/v1/users/{user_id}/token".encode()


def time_table(held: HeldTokens, clock: ManualClock) -> RefreshAhead:
    """Without anything behind it: a refresh that begins here would fail."""
    grants = cast(GrantStore, None)
    return RefreshAhead(held=held, grants=grants, refresher=cast(Refresher, None), clock=clock)


def test_all_that_is_kept_for_a_token_takes_a_kibibyte_at_most() -> None:
    just_filled, later = bytes_each(5_000)
    assert just_filled <= 1024
    assert later <= 1024


def test_users_who_came_once_leave_nothing_behind() -> None:
    holding = Holding(at_most=10)
    for number in range(5_000):
        holding.hand_out(number)
    assert len(holding.held) == 10
    assert len(holding.ahead) == 10
    (asker,) = holding.held._askers.values()
    assert len(asker.answers) == 10


def test_what_had_to_make_room_is_no_longer_alive_and_answers_nothing(clock: ManualClock) -> None:
    held = HeldTokens(tokens_at_most=1)
    first, second = held_token(clock, "user-1"), held_token(clock, "user-2")
    request = keep(held, first)
    keep(held, second)
    assert (first.alive, second.alive) == (False, True)
    assert held.answer(CALLER, request) is None
    assert held.spelled(CALLER, _target("user-1")) is None


def test_users_who_keep_asking_stay_when_others_come_once(clock: ManualClock) -> None:
    held = HeldTokens(tokens_at_most=10)
    asked_for = held_token(clock, "user-0")
    keep(held, asked_for)
    for number in range(1, 200):
        asked_for.used_lately = True
        keep(held, held_token(clock, f"user-{number}"))
    assert asked_for.alive
    assert len(held) == 10


def test_users_who_stopped_asking_go_in_their_turn(clock: ManualClock) -> None:
    held = HeldTokens(tokens_at_most=10)
    asked_for = held_token(clock, "user-0")
    keep(held, asked_for)
    asked_for.used_lately = True
    for number in range(1, 40):
        keep(held, held_token(clock, f"user-{number}"))
    assert not asked_for.alive


def test_a_newcomer_is_held_though_all_others_keep_asking(clock: ManualClock) -> None:
    held = HeldTokens(tokens_at_most=300)
    tokens = [held_token(clock, f"user-{number}") for number in range(300)]
    for token in tokens:
        keep(held, token)
        token.used_lately = True
    newcomer = held_token(clock, "user-new")
    keep(held, newcomer)
    assert newcomer.alive
    assert len(held) == 300


def test_answers_are_bounded_beside_the_tokens(clock: ManualClock) -> None:
    held = HeldTokens(answers_at_most=100)
    for number in range(60):
        token = held_token(clock, f"user-{number}")
        request = keep(held, token)
        held.keep_answer(replace(CALLER, name="other"), request, token)
    assert held._answers == 100
    assert len(held) == 50


def test_however_one_user_is_asked_for_the_answers_are_bounded(clock: ManualClock) -> None:
    held = HeldTokens(per_user=8)
    token = held_token(clock)
    request = keep(held, token)
    for number in range(100):
        held.keep_answer(CALLER, request, token, target=b"/%d" % number)
    assert held._answers <= 8
    assert len(held._askers["bench"].answers) <= 8


def test_a_users_tokens_are_bounded(clock: ManualClock) -> None:
    held = HeldTokens(per_user=8)
    tokens = [held_token(clock) for _ in range(30)]
    for token in tokens:
        held.keep("user-1", CALENDAR, token, Watch())
    assert len(held) == sum(token.alive for token in tokens) <= 8


def test_a_new_token_takes_the_place_of_the_old_one_everywhere(clock: ManualClock) -> None:
    held = HeldTokens()
    ahead = time_table(held, clock)
    held.on_held, held.on_gone = ahead.plan, ahead.drop
    grant = sample_grant("user-1", clock.now())
    access = AccessToken(Secret("ya29.x"), (CALENDAR,), clock.now(), clock.now() + HOUR)
    old, new = HeldToken(grant, access), HeldToken(grant, access)
    request = keep(held, old)
    held.keep("user-1", CALENDAR, new, Watch())
    assert (old.alive, new.alive, len(held), len(ahead)) == (False, True, 1, 1)
    assert held.answer(CALLER, request) is new
    spelled = held.spelled(CALLER, _target("user-1"))
    assert spelled is not None
    assert spelled.token is new


def test_a_token_of_a_changed_grant_ends_those_from_before_the_change(clock: ManualClock) -> None:
    """Also where the notice comes last, and finds the newer one."""
    held = HeldTokens()
    before = held_token(clock)
    after = of_same_grant(before, clock, later=1)
    request = keep(held, before)
    held.keep("user-1", EMAIL, after, Watch())
    assert not before.alive
    assert held.answer(CALLER, request) is None
    held.changed("user-1", UUID(bytes=after.grant_bytes), after.grant_version)
    assert after.alive
    assert not before.alive
    assert len(held) == 1


def test_what_was_read_before_a_change_is_not_held_beside_what_came_after(
    clock: ManualClock,
) -> None:
    held = HeldTokens()
    before = held_token(clock)
    after = of_same_grant(before, clock, later=1)
    late = held.watch("user-1")
    held.keep("user-1", EMAIL, after, Watch())
    held.changed("user-1", UUID(bytes=after.grant_bytes), after.grant_version)
    held.keep("user-1", CALENDAR, before, late)
    assert len(held) == 1


def test_a_fetch_is_not_disturbed_by_the_change_that_it_is_the_first_to_see(
    clock: ManualClock,
) -> None:
    held = HeldTokens()
    before = held_token(clock)
    keep(held, before)
    first, other = held.watch("user-1"), held.watch("user-1")
    after = of_same_grant(before, clock, later=1)
    held.keep("user-1", CALENDAR, after, first)
    assert after.alive
    assert (first.changed, other.changed) == (False, True)


def test_a_token_that_carries_less_does_not_answer_what_the_one_before_did(
    clock: ManualClock,
) -> None:
    held = HeldTokens()
    before = held_token(clock)
    request = keep(held, before)
    narrower = of_same_grant(before, clock, scopes=(EMAIL,))
    held.keep("user-1", CALENDAR, narrower, Watch())
    assert narrower.alive
    assert held.answer(CALLER, request) is None
    assert held.spelled(CALLER, _target("user-1")) is None


def test_an_answer_is_not_for_another_policy_of_the_same_caller(clock: ManualClock) -> None:
    held = HeldTokens()
    request = keep(held, held_token(clock))
    reloaded = replace(CALLER)
    assert held.answer(reloaded, request) is None
    assert held.spelled(reloaded, _target("user-1")) is None


def test_forgetting_a_user_ends_all_tokens(clock: ManualClock) -> None:
    held = HeldTokens()
    tokens = [held_token(clock) for _ in range(3)]
    for token in tokens:
        keep(held, token)
    held.forget("user-1")
    assert not any(token.alive for token in tokens)
    assert (len(held), held._answers, held._askers["bench"].answers) == (0, 0, {})


def test_a_token_that_is_not_held_answers_nothing(clock: ManualClock) -> None:
    held = HeldTokens()
    token = held_token(clock)
    request = TokenRequest("user-1", scopes=None, account=None, min_ttl=60)
    held.keep_answer(CALLER, request, token, target=_target("user-1"))
    assert held.spelled(CALLER, _target("user-1")) is None


@pytest.mark.parametrize("sub", ["108", 'a "quoted" one', "back\\slash", "ünusual", ""])
def test_an_audit_record_has_the_account_as_it_is(clock: ManualClock, sub: str) -> None:
    grant = replace(sample_grant("user-1", clock.now()), google_sub=sub)
    token = HeldToken(
        grant, AccessToken(Secret("ya29.x"), (CALENDAR,), clock.now(), clock.now() + HOUR)
    )
    shown = sub.replace("\\", "\\\\").encode()
    assert token.told() == b'user-1\t%b\t{"%b"}' % (shown, CALENDAR.encode())


async def test_a_token_that_is_idle_when_due_is_looked_at_again(clock: ManualClock) -> None:
    ahead = time_table(HeldTokens(), clock)
    ahead.plan(held_token(clock, left=timedelta(minutes=5)))
    await ahead.round()
    assert len(ahead) == 1


async def test_a_token_that_expired_idle_is_dropped(clock: ManualClock) -> None:
    ahead = time_table(HeldTokens(), clock)
    ahead.plan(held_token(clock))
    clock.advance(timedelta(hours=2))
    await ahead.round()
    assert len(ahead) == 0


def test_what_was_fetched_while_the_users_grants_changed_is_not_held(clock: ManualClock) -> None:
    held = HeldTokens()
    watch = held.watch("user-1")
    held.forget("user-1")
    held.keep("user-1", CALENDAR, held_token(clock), watch)
    assert len(held) == 0
