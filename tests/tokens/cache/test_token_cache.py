"""The token cache is bounded, evicts by second chance, and drops what is outdated."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from bench.cache_memory import CALLER, FilledCache, bytes_each
from bench.sample_grants import CALENDAR, sample_grant
from broker.grants.model import AccessToken
from broker.secret import Secret
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache, Watch
from broker.tokens.refresh.proactive_refresh import RefreshSchedule
from broker.tokens.token_request import TokenRequest
from tests.support.clock import ManualClock
from tests.support.scopes import EMAIL

HOUR = timedelta(hours=1)


def a_token(
    clock: ManualClock,
    user_id: str = "user-1",
    *,
    left: timedelta = HOUR,
    scopes: tuple[str, ...] = (CALENDAR,),
) -> CachedToken:
    now = clock.now()
    token = AccessToken(Secret("ya29.x"), scopes, now + left - HOUR, now + left)
    return CachedToken(sample_grant(user_id, now), token)


def token_of_same_grant(
    token: CachedToken, clock: ManualClock, *, later: int = 0, **is_: Any
) -> CachedToken:
    """Return another token of the same grant, `later` versions on."""
    other = a_token(clock, token.user_id, **is_)
    other.grant_bytes = token.grant_bytes
    other.grant_version = token.grant_version + later
    return other


def put(cache: TokenCache, token: CachedToken) -> TokenRequest:
    """Cache a token, as the answer to its user's first request."""
    cache.put(token.user_id, CALENDAR, token, Watch())
    request = TokenRequest(token.user_id, scopes=None, account=None, min_ttl=60)
    cache.put_answer(CALLER, request, token, target=_target(token.user_id))
    return request


def _target(user_id: str) -> bytes:
    return f"/v1/users/{user_id}/token".encode()


def test_a_cached_token_takes_a_kibibyte_at_most() -> None:
    just_filled, later = bytes_each(5_000)
    assert just_filled <= 1024
    assert later <= 1024


def test_users_with_one_request_leave_nothing_behind() -> None:
    holding = FilledCache(at_most=10)
    for number in range(5_000):
        holding.hand_out(number)
    assert len(holding.held) == 10
    assert len(holding.schedule) == 10
    (answers,) = holding.held._callers.values()
    assert len(answers.by_target) == 10


def test_an_evicted_token_is_not_alive_and_answers_nothing(clock: ManualClock) -> None:
    cache = TokenCache(tokens_at_most=1)
    first, second = a_token(clock, "user-1"), a_token(clock, "user-2")
    request = put(cache, first)
    put(cache, second)
    assert (first.alive, second.alive) == (False, True)
    assert cache.answer_to(CALLER, request) is None
    assert cache.find_by_target(CALLER, _target("user-1")) is None


def test_a_token_in_use_is_not_evicted_for_users_with_one_request(clock: ManualClock) -> None:
    cache = TokenCache(tokens_at_most=10)
    requested = a_token(clock, "user-0")
    put(cache, requested)
    for number in range(1, 200):
        requested.referenced = True
        put(cache, a_token(clock, f"user-{number}"))
    assert requested.alive
    assert len(cache) == 10


def test_a_token_that_is_no_longer_used_is_evicted(clock: ManualClock) -> None:
    cache = TokenCache(tokens_at_most=10)
    requested = a_token(clock, "user-0")
    put(cache, requested)
    requested.referenced = True
    for number in range(1, 40):
        put(cache, a_token(clock, f"user-{number}"))
    assert not requested.alive


def test_a_new_token_is_cached_although_all_others_are_in_use(clock: ManualClock) -> None:
    cache = TokenCache(tokens_at_most=300)
    tokens = [a_token(clock, f"user-{number}") for number in range(300)]
    for token in tokens:
        put(cache, token)
        token.referenced = True
    newcomer = a_token(clock, "user-new")
    put(cache, newcomer)
    assert newcomer.alive
    assert len(cache) == 300


def test_answers_have_a_bound_of_their_own(clock: ManualClock) -> None:
    cache = TokenCache(answers_at_most=100)
    for number in range(60):
        token = a_token(clock, f"user-{number}")
        request = put(cache, token)
        cache.put_answer(replace(CALLER, name="other"), request, token)
    assert cache._answers == 100
    assert len(cache) == 50


def test_the_answers_of_one_user_are_bounded(clock: ManualClock) -> None:
    cache = TokenCache(per_user=8)
    token = a_token(clock)
    request = put(cache, token)
    for number in range(100):
        cache.put_answer(CALLER, request, token, target=b"/%d" % number)
    assert cache._answers <= 8
    assert len(cache._callers["bench"].by_target) <= 8


def test_a_users_tokens_are_bounded(clock: ManualClock) -> None:
    cache = TokenCache(per_user=8)
    tokens = [a_token(clock) for _ in range(30)]
    for token in tokens:
        cache.put("user-1", CALENDAR, token, Watch())
    assert len(cache) == sum(token.alive for token in tokens) <= 8


def test_a_new_token_replaces_the_old_one_in_every_index(clock: ManualClock) -> None:
    schedule = RefreshSchedule(clock)
    cache = TokenCache(on_put=schedule.add, on_removed=schedule.remove)
    grant = sample_grant("user-1", clock.now())
    access = AccessToken(Secret("ya29.x"), (CALENDAR,), clock.now(), clock.now() + HOUR)
    old, new = CachedToken(grant, access), CachedToken(grant, access)
    request = put(cache, old)
    cache.put("user-1", CALENDAR, new, Watch())
    assert (old.alive, new.alive, len(cache), len(schedule)) == (False, True, 1, 1)
    assert cache.answer_to(CALLER, request) is new
    answer = cache.find_by_target(CALLER, _target("user-1"))
    assert answer is not None
    assert answer.token is new


def test_a_token_of_a_newer_version_drops_the_older_tokens(clock: ManualClock) -> None:
    """The notification of the change, which comes last, leaves the newer token."""
    cache = TokenCache()
    before = a_token(clock)
    after = token_of_same_grant(before, clock, later=1)
    request = put(cache, before)
    cache.put("user-1", EMAIL, after, Watch())
    assert not before.alive
    assert cache.answer_to(CALLER, request) is None
    cache.invalidate_older("user-1", UUID(bytes=after.grant_bytes), after.grant_version)
    assert after.alive
    assert not before.alive
    assert len(cache) == 1


def test_a_token_read_before_a_change_is_not_cached_beside_a_newer_one(
    clock: ManualClock,
) -> None:
    cache = TokenCache()
    before = a_token(clock)
    after = token_of_same_grant(before, clock, later=1)
    with cache.watch("user-1") as late:
        cache.put("user-1", EMAIL, after, Watch())
        cache.invalidate_older("user-1", UUID(bytes=after.grant_bytes), after.grant_version)
        cache.put("user-1", CALENDAR, before, late)
    assert len(cache) == 1


def test_the_request_that_finds_a_change_first_goes_on(
    clock: ManualClock,
) -> None:
    cache = TokenCache()
    before = a_token(clock)
    put(cache, before)
    after = token_of_same_grant(before, clock, later=1)
    with cache.watch("user-1") as first, cache.watch("user-1") as other:
        cache.put("user-1", CALENDAR, after, first)
        assert after.alive
        assert (first.changed, other.changed) == (False, True)


def test_a_token_with_fewer_scopes_does_not_answer_the_requests_of_the_one_before(
    clock: ManualClock,
) -> None:
    cache = TokenCache()
    before = a_token(clock)
    request = put(cache, before)
    narrower = token_of_same_grant(before, clock, scopes=(EMAIL,))
    cache.put("user-1", CALENDAR, narrower, Watch())
    assert narrower.alive
    assert cache.answer_to(CALLER, request) is None
    assert cache.find_by_target(CALLER, _target("user-1")) is None


def test_an_answer_is_not_for_another_policy_of_the_same_caller(clock: ManualClock) -> None:
    cache = TokenCache()
    request = put(cache, a_token(clock))
    reloaded = replace(CALLER)
    assert cache.answer_to(reloaded, request) is None
    assert cache.find_by_target(reloaded, _target("user-1")) is None


def test_invalidating_a_user_drops_all_tokens(clock: ManualClock) -> None:
    cache = TokenCache()
    tokens = [a_token(clock) for _ in range(3)]
    for token in tokens:
        put(cache, token)
    cache.invalidate("user-1")
    assert not any(token.alive for token in tokens)
    assert (len(cache), cache._answers, cache._callers["bench"].by_target) == (0, 0, {})


def test_a_token_that_is_not_cached_answers_nothing(clock: ManualClock) -> None:
    cache = TokenCache()
    token = a_token(clock)
    request = TokenRequest("user-1", scopes=None, account=None, min_ttl=60)
    cache.put_answer(CALLER, request, token, target=_target("user-1"))
    assert cache.find_by_target(CALLER, _target("user-1")) is None


@pytest.mark.parametrize("sub", ["108", 'a "quoted" one', "back\\slash", "ünusual", ""])
def test_an_audit_record_has_the_account_as_it_is(clock: ManualClock, sub: str) -> None:
    grant = replace(sample_grant("user-1", clock.now()), google_sub=sub)
    token = CachedToken(
        grant, AccessToken(Secret("ya29.x"), (CALENDAR,), clock.now(), clock.now() + HOUR)
    )
    shown = sub.replace("\\", "\\\\").encode()
    assert token.subject_fields() == b'user-1\t%b\t{"%b"}' % (shown, CALENDAR.encode())


def test_a_token_fetched_while_the_users_grants_changed_is_not_cached(clock: ManualClock) -> None:
    cache = TokenCache()
    with cache.watch("user-1") as watch:
        cache.invalidate("user-1")
        cache.put("user-1", CALENDAR, a_token(clock), watch)
    assert len(cache) == 0


def test_while_the_cache_is_suspended_nothing_is_cached(clock: ManualClock) -> None:
    cache = TokenCache()
    cache.is_suspended = True
    put(cache, a_token(clock))
    assert len(cache) == 0


def test_invalidating_everything_starts_the_requests_in_progress_over(clock: ManualClock) -> None:
    cleared: list[bool] = []
    cache = TokenCache(on_cleared=lambda: cleared.append(True))
    tokens = [a_token(clock, f"user-{number}") for number in range(3)]
    requests = [put(cache, token) for token in tokens]
    with cache.watch("user-0") as watch, cache.watch("user-9") as other:
        cache.invalidate_all()
        assert (watch.changed, other.changed) == (True, True)
    assert cleared == [True]
    assert (len(cache), cache._answers) == (0, 0)
    assert not any(token.alive for token in tokens)
    assert [cache.answer_to(CALLER, request) for request in requests] == [None] * 3


@pytest.mark.parametrize(("version", "is_dropped"), [(1, False), (2, True)])
def test_a_notification_drops_older_tokens_only(
    clock: ManualClock, version: int, is_dropped: bool
) -> None:
    cache = TokenCache()
    token = a_token(clock)
    put(cache, token)
    cache.invalidate_older("user-1", UUID(bytes=token.grant_bytes), version)
    assert token.alive is not is_dropped


def test_a_watch_of_another_user_notes_nothing(clock: ManualClock) -> None:
    cache = TokenCache()
    with cache.watch("user-1") as watch:
        cache.invalidate("user-2")
        assert not watch.changed
    cache.invalidate("user-1")
    assert not watch.changed
    assert cache._watches == {}
