"""Security events end the consents that wait for their confirmation, and leave a record of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.lookups import TokenLookups
from broker.grants.pending.fingerprints import WaitingLookupFill
from broker.grants.resealing import Resealer
from broker.secret import Secret
from tests.security.probes import audited
from tests.security_events.events import post, refresh_token, seconds, state, tell
from tests.support.waiting import eventually
from tests.support.world import ADA, CALENDAR, World

GRACE = "grace@example.com"
ALGORITHMS = ("prefix", "hash_base64_sha512_sha512")
ENDING = ("tokens-revoked", "sessions-revoked", "account-disabled")
NO_LOOKUPS = (
    "UPDATE pending_consents SET lookup_key_id = NULL, lookup_prefix = NULL, lookup_digest = NULL"
)


async def waiting(world: World) -> int:
    return len(await world.sql("SELECT * FROM pending_consents"))


async def is_filled(world: World) -> bool:
    (row,) = await world.sql("SELECT lookup_key_id FROM pending_consents")
    return row[0] is not None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_check_40_token_revoked_ends_the_waiting_consent_whose_token_is_named(
    world: World, algorithm: str
) -> None:
    other = await world.connect_unconfirmed("user-2", account=GRACE)
    trip = await world.connect_unconfirmed()
    await tell(world, "token-revoked", refresh_token=refresh_token(world), algorithm=algorithm)
    assert await waiting(world) == 1
    answer = await world.confirm(trip)
    assert (answer.status_code, answer.json()["code"]) == (409, "confirmation_invalid")
    assert (await world.token()).status_code == 404
    assert await world.grants() == []
    (record,) = await audited(world, "security_event", "token-revoked:consent_ended")
    assert (record["user_id"], record["account_sub"]) == (
        "user-1",
        world.standin.account(ADA).sub,
    )
    counted = {"event": "token-revoked", "outcome": "consent_ended"}
    assert await world.metric("broker_security_events_total", **counted) == 1
    assert (await world.confirm(other)).status_code == 200


async def test_a_live_grant_lives_on_when_the_token_of_its_waiting_successor_is_revoked(
    world: World,
) -> None:
    await world.connect()
    await world.connect_unconfirmed(scopes=[CALENDAR])
    await tell(world, "token-revoked", refresh_token=refresh_token(world))
    assert await waiting(world) == 0
    assert await state(world) == [("user-1", "active", None, True)]


async def test_what_waits_on_a_grants_own_token_ends_with_that_token(world: World) -> None:
    await world.connect(scopes=[CALENDAR])
    named = refresh_token(world)
    await world.connect_unconfirmed(login_hint=ADA, scopes=[CALENDAR])
    rows = await world.sql("SELECT sealed_refresh_token FROM pending_consents")
    assert [row[0] for row in rows] == [None]
    await tell(world, "token-revoked", refresh_token=named)
    assert await waiting(world) == 0
    assert (await world.grants())[0]["status"] == "reauthorization_required"


@pytest.mark.parametrize("event", [*ENDING, "account-credential-change-required"])
async def test_what_an_account_event_ends_leaves_a_record(world: World, event: str) -> None:
    trip = await world.connect_unconfirmed()
    await tell(world, event)
    assert (await world.confirm(trip)).json()["code"] == "confirmation_invalid"
    (record,) = await audited(world, "security_event", f"{event}:consent_ended")
    assert (record["user_id"], record["scopes"] != []) == ("user-1", True)


@pytest.mark.parametrize("event", ENDING)
async def test_a_consent_of_the_same_second_as_the_event_ends_too(world: World, event: str) -> None:
    """Events are dated in whole seconds, consents are not."""
    now = seconds(world)
    world.clock.advance(timedelta(milliseconds=900))
    await world.connect_unconfirmed()
    await tell(world, event, claims={"iat": now})
    assert await waiting(world) == 0


@pytest.mark.parametrize("event", ENDING)
async def test_a_consent_that_is_newer_than_the_event_has_google_asked_after_its_confirmation(
    world: World, event: str
) -> None:
    trip = await world.connect_unconfirmed()
    await tell(world, event, claims={"iat": seconds(world) - 30})
    assert (await world.confirm(trip)).status_code == 200
    refreshes = world.refreshes_at_google()
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_an_enabled_account_ends_nothing_that_waits(world: World) -> None:
    trip = await world.connect_unconfirmed()
    await tell(world, "account-enabled")
    assert (await world.confirm(trip)).status_code == 200


async def test_a_waiting_consent_of_another_project_is_not_meant(world: World) -> None:
    await world.connect_unconfirmed()
    await world.connect("user-2", GRACE)
    await world.sql("UPDATE pending_consents SET client_id = '12-a.apps.example'")
    await world.sql("UPDATE grants SET client_id = '34-b.apps.example'")
    await tell(world, "tokens-revoked", claims={"aud": "34-b.apps.example"})
    assert await waiting(world) == 1


async def test_the_client_of_a_waiting_consent_alone_counts_as_ours(world: World) -> None:
    await world.connect_unconfirmed()
    await world.sql("UPDATE pending_consents SET client_id = '12-a.apps.example'")
    await tell(world, "tokens-revoked", claims={"aud": "12-a.apps.example"})
    assert await waiting(world) == 0


@asynccontextmanager
async def _database_of(world: World) -> AsyncIterator[Database]:
    database = Database(world.settings.database_url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_waiting_consent_of_an_older_release_is_found_once_its_values_are_made(
    world: World, algorithm: str
) -> None:
    await world.connect_unconfirmed()
    await world.sql(NO_LOOKUPS)
    keys = world.settings.secret_keys
    async with _database_of(world) as database:
        sealer = Sealer(local_sealing_keys(keys))
        await WaitingLookupFill(database, sealer, TokenLookups(keys)).run()
    assert await is_filled(world)
    await tell(world, "token-revoked", refresh_token=refresh_token(world), algorithm=algorithm)
    assert await waiting(world) == 0


async def test_values_of_a_token_that_was_replaced_meanwhile_are_not_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fill has read the row; then the link brings another consent."""
    await world.connect_unconfirmed()
    await world.sql(NO_LOOKUPS)
    keys = world.settings.secret_keys
    async with _database_of(world) as database:
        fill = WaitingLookupFill(database, Sealer(local_sealing_keys(keys)), TokenLookups(keys))
        portion = fill._portion

        async def read_and_replaced(beyond: UUID) -> list[asyncpg.Record]:
            rows = await portion(beyond)
            await world.sql("UPDATE pending_consents SET sealed_refresh_token = 'another'::bytea")
            return rows

        monkeypatch.setattr(fill, "_portion", read_and_replaced)
        await fill.run()
    assert not await is_filled(world)


async def test_keys_reseal_makes_the_values_anew_with_the_first_key(world: World) -> None:
    await world.connect_unconfirmed()
    old = world.settings.secret_keys[0]
    keys = (Secret("n" * 40), old)
    async with _database_of(world) as database:
        await Resealer(database, Sealer(local_sealing_keys(keys)), TokenLookups(keys)).run()
        # What no key opens stops nothing, and is left.
        alone = keys[:1]
        sealer = Sealer(local_sealing_keys(alone))
        await WaitingLookupFill(database, sealer, TokenLookups((old,))).run()
    (row,) = await world.sql("SELECT * FROM pending_consents")
    made = TokenLookups(keys).of(Secret(refresh_token(world)))
    values = (row["lookup_key_id"], row["lookup_prefix"], row["lookup_digest"])
    assert values == (made.key_id, made.prefix, made.digest)


async def test_check_18_the_values_of_a_waiting_consent_show_nothing_of_its_token(
    world: World,
) -> None:
    await world.connect_unconfirmed()
    (row,) = await world.sql("SELECT p::text FROM pending_consents p")
    token = refresh_token(world)
    assert token[:16] not in row[0]
    assert token[:16].encode().hex() not in row[0]


async def test_a_confirmation_and_the_tokens_end_at_once_leave_no_working_grant(
    world: World,
) -> None:
    for number in range(8):
        user_id = f"user-{number}"
        trip = await world.connect_unconfirmed(user_id)
        named = world.standin.security_event(
            "token-revoked", refresh_token=refresh_token(world), algorithm="prefix"
        )
        _, answer = await asyncio.gather(world.confirm(trip), post(world, named))
        assert answer.status_code == 202
        for grant in await world.grants(user_id):
            assert grant["status"] == "reauthorization_required"


LIVE_ON = ("sessions-revoked", "account-credential-change-required", "account-disabled")
"""What Google tells without having ended any refresh token."""


async def _nothing_alive(world: World) -> bool:
    with world.standin.state.lock:
        is_alive = world.standin.state.refresh_tokens != {}
    return not is_alive and await world.sql("SELECT 1 FROM pending_revocations") == []


@pytest.mark.parametrize("event", LIVE_ON)
async def test_a_waiting_consent_that_an_event_ends_is_ended_at_google(
    world: World, event: str
) -> None:
    for user_id in ("user-1", "user-2"):
        await world.connect_unconfirmed(user_id)
    await tell(world, event)
    assert await waiting(world) == 0
    await eventually(lambda: _nothing_alive(world))


@pytest.mark.parametrize("event", LIVE_ON)
async def test_a_waiting_consent_that_an_event_ends_takes_no_grant_of_its_account_along(
    world: World, event: str
) -> None:
    await world.connect()
    await world.connect_unconfirmed("user-2")
    await tell(world, event)
    assert await waiting(world) == 0
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert world.standin.requests.count("revoke") == 0


async def test_of_tokens_that_google_revoked_it_is_not_told(world: World) -> None:
    await world.connect_unconfirmed()
    named = refresh_token(world)
    await tell(world, "token-revoked", refresh_token=named, algorithm="prefix")
    await world.connect_unconfirmed()
    await tell(world, "tokens-revoked")
    assert await waiting(world) == 0
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert world.standin.requests.count("revoke") == 0
