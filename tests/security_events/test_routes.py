"""The receiver refuses tokens that are not Google's or not for this broker."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest

from broker.google.security_events import CLOCK_AHEAD_AT_MOST, OLDEST_EVENT_TOKEN
from devstack.google_standin import Fault
from devstack.postgres import EmbeddedPostgres
from tests.support.outages import database_unavailable
from tests.support.probes import audited
from tests.support.security_events import (
    EVENTS_PATH,
    MEDIA_TYPE,
    everything,
    post,
    seconds,
    send_event,
    state,
)
from tests.support.world import ADA, CLIENT_ID, World

ACTIVE = [("user-1", "active", None, True)]


@pytest.mark.parametrize(
    ("defect", "error", "reason"),
    [
        ("alg_none", "invalid_key", "alg"),
        ("hs256", "invalid_key", "alg"),
        ("unknown_kid", "invalid_key", "unknown_key"),
        ("missing_kid", "invalid_key", "unknown_key"),
        ("bad_signature", "authentication_failed", "bad_signature"),
        ("aud", "invalid_audience", "aud"),
        ("iss", "invalid_issuer", "iss"),
        ("not_a_jwt", "invalid_request", "malformed"),
    ],
)
async def test_a_forgery_is_refused_without_effect(
    world: World, defect: str, error: str, reason: str
) -> None:
    await world.connect()
    before = await everything(world)
    answer = await post(world, world.standin.security_event("tokens-revoked", ADA, defect=defect))
    assert answer.status_code == 400
    assert answer.json()["err"] == error
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert await everything(world) == before
    assert await audited(world, "security_event", f"refused:{reason}")
    assert await world.metric("broker_security_events_total", event="none", outcome=reason) == 1


CLAIMS = {
    "no jti": {"jti": None},
    "empty jti": {"jti": ""},
    "jti of a number": {"jti": 7},
    "jti of a NUL": {"jti": "a\0b"},
    "jti with a lone surrogate": {"jti": "\ud800"},
    "long jti": {"jti": "x" * 256},
    "no iat": {"iat": None},
    "iat of a text": {"iat": "1767268800"},
    "iat of a boolean": {"iat": True},
    "iat NaN": {"iat": float("nan")},
    "infinite iat": {"iat": float("inf")},
    "huge iat": {"iat": 10**300},
    "no events": {"events": None},
    "events in a list": {"events": ["tokens-revoked"]},
    "events in a text": {"events": "tokens-revoked"},
    "empty events": {"events": {}},
    "too many events": {"events": {f"urn:event:{n}": {} for n in range(17)}},
    "event of a text": {"events": {"urn:event": "now"}},
    "event of nothing": {"events": {"urn:event": None}},
    "no aud": {"aud": None},
    "aud of a number": {"aud": 7},
    "empty aud": {"aud": []},
    "aud of an object": {"aud": {CLIENT_ID: True}},
    "aud with a lone surrogate": {"aud": ["\ud800"]},
    "no iss": {"iss": None},
    "iss in a list": {"iss": ["https://accounts.google.com"]},
}


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS.keys())
async def test_a_malformed_token_is_refused_without_effect(
    world: World, claims: dict[str, object]
) -> None:
    await world.connect()
    before = await everything(world)
    answer = await post(world, world.standin.security_event("tokens-revoked", ADA, claims=claims))
    assert answer.status_code == 400
    assert set(answer.json()) == {"err", "description"}
    assert await everything(world) == before


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b".", b"..", b"a.b.c", b"{}", b"e30.e30", b"\0" * 100, b"." * 5000],
)
async def test_a_body_that_is_no_token_is_refused(world: World, body: bytes) -> None:
    answer = await post(world, body)
    assert (answer.status_code, answer.json()["err"]) == (400, "invalid_request")


async def test_a_megabyte_is_refused_before_it_is_read(world: World) -> None:
    sent = 0

    async def megabyte() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(16):
            sent += 65_536
            yield b"e" * 65_536

    answer = await world.public.post(
        EVENTS_PATH,
        content=megabyte(),
        headers={"Content-Type": MEDIA_TYPE, "Content-Length": f"{1024 * 1024}"},
    )
    assert (answer.status_code, answer.json()["err"]) == (413, "invalid_request")
    assert sent < 131_072


async def test_only_post_is_served(world: World) -> None:
    assert (await world.public.get(EVENTS_PATH)).status_code == 405


@pytest.mark.parametrize("listener", ["internal", "ops"])
async def test_other_listeners_do_not_serve_it(world: World, listener: str) -> None:
    client: httpx2.AsyncClient = getattr(world, listener)
    assert (await client.post(EVENTS_PATH, content=b"x")).status_code == 404


@pytest.mark.parametrize("content_type", ["", "application/jwt", "text/plain"])
async def test_the_content_type_is_ignored(world: World, content_type: str) -> None:
    await world.connect()
    token = world.standin.security_event("tokens-revoked", ADA)
    answer = await post(world, token, **{"Content-Type": content_type})
    assert answer.status_code == 202
    assert await state(world) != ACTIVE


async def test_an_audience_list_may_contain_other_clients(world: World) -> None:
    await world.connect()
    await send_event(world, "tokens-revoked", claims={"aud": ["other.apps.example", CLIENT_ID]})
    assert await state(world) == [
        ("user-1", "reauthorization_required", "google_tokens_revoked", False)
    ]


async def test_the_previous_client_of_a_grant_is_an_accepted_audience(
    world: World,
) -> None:
    await world.connect()
    await world.sql("UPDATE grants SET client_id = '7-old.apps.googleusercontent.com'")
    await send_event(world, "sessions-revoked", claims={"aud": "7-old.apps.googleusercontent.com"})
    answer = await post(
        world,
        world.standin.security_event(
            "sessions-revoked", ADA, claims={"aud": "7-never.apps.googleusercontent.com"}
        ),
    )
    assert answer.json()["err"] == "invalid_audience"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_issuer_is_accepted_with_and_without_slash(world: World, slash: str) -> None:
    await world.connect()
    issuer = world.standin.base_url + slash
    await send_event(world, "tokens-revoked", claims={"iss": issuer})
    assert await state(world) != ACTIVE


async def test_an_id_token_is_not_a_security_event(world: World) -> None:
    await world.connect()
    answer = await post(world, world.standin.issued.id_tokens[-1])
    assert answer.status_code == 400


async def test_exp_is_not_checked(world: World) -> None:
    await world.connect()
    await send_event(world, "tokens-revoked", claims={"exp": seconds(world) - 3600})
    assert await state(world) != ACTIVE


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (OLDEST_EVENT_TOKEN.total_seconds() + 1, 400),
        (OLDEST_EVENT_TOKEN.total_seconds() - 1, 202),
        (-CLOCK_AHEAD_AT_MOST.total_seconds() - 1, 400),
        (-CLOCK_AHEAD_AT_MOST.total_seconds() + 1, 202),
    ],
)
async def test_a_token_from_the_far_past_or_future_is_refused(
    world: World, age: float, status: int
) -> None:
    token = world.standin.security_event("verification", claims={"iat": seconds(world) - age})
    assert (await post(world, token)).status_code == status


async def test_a_replay_has_no_effect_even_after_its_jti_is_purged(world: World) -> None:
    await world.connect()
    token = await send_event(world, "tokens-revoked", claims={"iat": seconds(world) + 500})
    for days in (1, 29, 1, 1):
        world.clock.advance(timedelta(days=days))
        await world.connect()
        await post(world, token)
        assert await state(world) == ACTIVE
    # 32 days have passed: a token whose id was purged after 31 days is refused by its age.
    await world.sql("DELETE FROM security_event_tokens")
    assert (await post(world, token)).status_code == 400
    assert await state(world) == ACTIVE


async def test_a_new_signing_key_is_fetched(world: World) -> None:
    await world.connect()
    await send_event(world, "verification", account=None)
    world.clock.advance(timedelta(seconds=11))
    world.standin.rotate_keys()
    await send_event(world, "tokens-revoked")
    assert await state(world) != ACTIVE


async def test_unknown_key_ids_do_not_cause_repeated_fetches(world: World) -> None:
    await send_event(world, "verification", account=None)
    before = world.standin.requests.count("jwks")
    token = world.standin.security_event("tokens-revoked", ADA, defect="unknown_kid")
    for _ in range(50):
        assert (await post(world, token)).status_code == 400
    assert world.standin.requests.count("jwks") <= before + 1


@pytest.mark.parametrize("endpoint", ["risc_configuration", "jwks"])
async def test_without_googles_keys_the_answer_is_503_and_a_retry_works(
    world: World, endpoint: str
) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=2))
    world.standin.faults.always(endpoint, Fault.http(503))
    token = world.standin.security_event("tokens-revoked", ADA)
    answer = await post(world, token)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert await state(world) == ACTIVE
    world.standin.faults.clear()
    world.clock.advance(timedelta(seconds=3))
    assert (await post(world, token)).status_code == 202
    assert await state(world) != ACTIVE


async def test_without_postgresql_the_answer_is_503_and_a_retry_works(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    token = world.standin.security_event("tokens-revoked", ADA)
    async with database_unavailable(world, postgres):
        assert (await post(world, token)).status_code == 503
    answer = await post(world, token)
    assert answer.status_code == 202
    assert await state(world) != ACTIVE


async def test_a_verification_is_stored_with_its_state(world: World) -> None:
    await send_event(world, "verification", account=None, payload={"state": "is it you?"})
    (row,) = await world.sql("SELECT verification_state FROM security_event_tokens")
    assert row[0] == "is it you?"
    assert await audited(world, "security_event", "verification:noted")


@pytest.mark.parametrize("unfit", ["x\0y", 7, None, ["a"], "\ud800"])
async def test_a_state_that_is_no_text_is_ignored(world: World, unfit: object) -> None:
    await send_event(world, "verification", account=None, payload={"state": unfit})
    (row,) = await world.sql("SELECT verification_state FROM security_event_tokens")
    assert row[0] is None


async def test_refusals_do_not_quote_the_token(world: World) -> None:
    token = world.standin.security_event("tokens-revoked", ADA, defect="bad_signature")
    text = (await post(world, token)).text
    assert json.loads(text).keys() == {"err", "description"}
    assert not any(part in text for part in token.split("."))
