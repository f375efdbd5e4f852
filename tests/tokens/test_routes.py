"""`GET /v1/users/{user_id}/token`: answers to valid and to malformed requests."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import ADA, World, stanza


async def test_the_answer_for_a_connected_user_has_the_contracts_shape(world: World) -> None:
    await world.connect()
    answer = await world.token()
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {
        "access_token",
        "token_type",
        "expires_in",
        "expires_at",
        "scope",
        "account",
    }
    assert body["token_type"] == "Bearer"
    assert body["scope"] == CALENDAR_READONLY
    assert body["account"] == {"sub": world.standin.account(ADA).sub, "email": ADA}
    assert 3590 <= body["expires_in"] <= 3600


async def test_the_token_works_at_google(world: World) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    assert token in world.standin.state.access_tokens


async def test_a_cached_answer_is_the_same_as_the_first(world: World) -> None:
    await world.connect()
    first, second = await world.token(), await world.token()
    assert first.json() == second.json()
    assert second.headers["cache-control"] == "no-store"
    assert world.refreshes_at_google() == 1


async def test_the_remaining_seconds_of_a_cached_token_count_down(world: World) -> None:
    await world.connect()
    before = (await world.token()).json()
    world.clock.advance(timedelta(minutes=10))
    after = (await world.token()).json()
    assert before["expires_in"] - after["expires_in"] == 600
    assert before["access_token"] == after["access_token"]


async def test_a_token_that_lives_less_than_min_ttl_is_refreshed(world: World) -> None:
    await world.connect()
    before = (await world.token()).json()
    world.clock.advance(timedelta(minutes=59, seconds=30))
    after = (await world.token()).json()
    assert after["access_token"] != before["access_token"]
    assert after["expires_in"] > 3500


async def test_a_shorter_min_ttl_gets_the_cached_token(world: World) -> None:
    await world.connect()
    before = (await world.token()).json()
    world.clock.advance(timedelta(minutes=59, seconds=30))
    after = (await world.token(min_ttl=10)).json()
    assert after["access_token"] == before["access_token"]


async def test_simultaneous_requests_at_expiry_share_one_refresh(world: World) -> None:
    await world.connect()
    await world.token()
    refreshes = world.refreshes_at_google()
    world.clock.advance(timedelta(hours=1))
    answers = await asyncio.gather(*(world.token() for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert world.refreshes_at_google() == refreshes + 1


async def test_a_cancelled_request_cancels_no_other(world: World) -> None:
    await world.connect()
    await world.token()
    world.clock.advance(timedelta(hours=2))
    impatient = asyncio.create_task(world.token())
    patient = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.requests.wait_for, "token", count=3)
    impatient.cancel()
    assert (await patient).status_code == 200


async def test_a_min_ttl_beyond_any_lifetime_does_not_storm_google(world: World) -> None:
    await world.connect()
    for _ in range(20):
        assert (await world.token(min_ttl=86_400)).status_code == 200
    assert world.refreshes_at_google() == 1


async def test_scope_narrows_the_token(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    answer = (await world.token(scope=CALENDAR_READONLY)).json()
    assert answer["scope"] == CALENDAR_READONLY


async def test_without_scope_the_token_has_what_grant_and_caller_share(world: World) -> None:
    both = [CALENDAR_READONLY, GMAIL_READONLY]
    await world.rewrite_callers({"calendar-sync": stanza(world.key, scopes=both)})
    await world.connect(scopes=both)
    await world.rewrite_callers({"calendar-sync": stanza(world.key, scopes=[CALENDAR_READONLY])})
    assert (await world.token()).json()["scope"] == CALENDAR_READONLY


async def test_tokens_of_different_scopes_are_cached_separately(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    narrow = (await world.token(scope=CALENDAR_READONLY)).json()["access_token"]
    wide = (await world.token(scope=f"{CALENDAR} {CALENDAR_READONLY}")).json()["access_token"]
    assert narrow != wide
    assert (await world.token(scope=CALENDAR_READONLY)).json()["access_token"] == narrow


async def test_check_31_every_requested_scope_must_be_granted(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    before = world.refreshes_at_google()
    answer = await world.token(scope=f"{CALENDAR_READONLY} {CALENDAR}")
    assert (answer.status_code, answer.json()["code"]) == (409, "scope_not_granted")
    assert answer.json()["missing"] == [CALENDAR]
    assert world.refreshes_at_google() == before


async def test_only_spaces_separate_scopes(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    answer = await world.token(scope=f"{CALENDAR}\t{CALENDAR_READONLY}")
    assert (answer.status_code, answer.json()["field"]) == (400, "scope")


async def test_a_scope_that_was_not_granted_is_named(world: World) -> None:
    await world.connect()
    answer = await world.token(scope=CALENDAR)
    assert answer.status_code == 409
    assert answer.json()["code"] == "scope_not_granted"
    assert answer.json()["missing"] == [CALENDAR]


async def test_a_scope_outside_the_policy_is_refused_without_a_call_to_google(
    world: World,
) -> None:
    await world.connect()
    seen = len(world.standin.requests)
    answer = await world.token(scope=GMAIL_READONLY)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed")
    assert len(world.standin.requests) == seen


async def test_a_user_without_a_grant_is_not_found(world: World) -> None:
    answer = await world.token("nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "grant_not_found")


async def test_the_first_account_stays_the_default_when_a_second_is_connected(
    world: World,
) -> None:
    await world.connect(account=ADA)
    world.standin.add_account("second@example.com")
    await world.connect(account="second@example.com")
    assert (await world.token()).json()["account"]["email"] == ADA


@pytest.mark.parametrize("by", ["sub", "email", "EMAIL"])
async def test_account_selects_one_of_several(world: World, by: str) -> None:
    second = world.standin.add_account("second@example.com")
    await world.connect(account=ADA)
    await world.connect(account=second.email)
    named = {"sub": second.sub, "email": second.email, "EMAIL": second.email.upper()}[by]
    assert (await world.token(account=named)).json()["account"]["sub"] == second.sub


async def test_several_accounts_without_a_default_are_ambiguous(world: World) -> None:
    for email in ("second@example.com", "third@example.com"):
        world.standin.add_account(email)
    await world.connect(account=ADA)
    await world.connect(account="second@example.com")
    await world.connect(account="third@example.com")
    await world.revoke(sub=world.standin.account(ADA).sub)
    answer = await world.token()
    assert (answer.status_code, answer.json()["code"]) == (409, "account_ambiguous")


async def test_the_last_remaining_account_becomes_the_default_and_stays_it(world: World) -> None:
    for email in ("second@example.com", "third@example.com"):
        world.standin.add_account(email)
    await world.connect(account=ADA)
    await world.connect(account="second@example.com")
    await world.revoke(sub=world.standin.account(ADA).sub)
    await world.connect(account="third@example.com")
    assert (await world.token()).json()["account"]["email"] == "second@example.com"


async def test_the_only_remaining_account_needs_no_name(world: World) -> None:
    world.standin.add_account("second@example.com")
    await world.connect(account=ADA)
    await world.connect(account="second@example.com")
    await world.revoke(sub=world.standin.account(ADA).sub)
    assert (await world.token()).json()["account"]["email"] == "second@example.com"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"min_ttl": "soon"}, "min_ttl"),
        ({"min_ttl": "-1"}, "min_ttl"),
        ({"min_ttl": "1.5"}, "min_ttl"),
        ({"min_ttl": "99999"}, "min_ttl"),
        ({"min_ttl": "٣"}, "min_ttl"),
        ({"scope": ""}, "scope"),
        ({"scope": 'bad"scope'}, "scope"),
        ({"scope": "x" * 9000}, "scope"),
        ({"account": ""}, "account"),
        ({"account": "a\nb"}, "account"),
        ({"account": "x" * 321}, "account"),
        ({"acount": ADA}, "query"),
    ],
)
async def test_a_malformed_query_names_the_field(
    world: World, query: dict[str, Any], field: str
) -> None:
    answer = await world.token(**query)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["field"] == field


async def test_a_parameter_given_twice_is_refused(world: World) -> None:
    answer = await world.internal.get(
        "/v1/users/user-1/token?min_ttl=1&min_ttl=2", headers=world.authorization
    )
    assert (answer.status_code, answer.json()["field"]) == (400, "min_ttl")


@pytest.mark.parametrize("user_id", ["a" * 256, "a\x00b", "a\nb", "\x85"])
async def test_a_bad_user_id_is_refused(world: World, user_id: str) -> None:
    answer = await world.token(user_id)
    assert (answer.status_code, answer.json()["field"]) == (400, "user_id")


async def test_a_user_id_that_is_not_utf_8_is_refused(world: World) -> None:
    answer = await world.internal.get("/v1/users/%ff%fe/token", headers=world.authorization)
    assert (answer.status_code, answer.json()["field"]) == (400, "user_id")


@pytest.mark.parametrize("user_id", ["a/b", "ä ö", "a%2Fb", "用户", "a" * 255, "x?y#z"])
async def test_every_other_user_id_works_percent_encoded(world: World, user_id: str) -> None:
    await world.connect(user_id)
    assert (await world.token(user_id)).status_code == 200
    assert (await world.token("another")).status_code == 404
