"""Security events end pending consents, and the audit trail records it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.fingerprints import PendingFingerprintBackfill, TokenFingerprints
from broker.grants.resealing import Resealer
from broker.secret import Secret
from tests.support.probes import audited
from tests.support.scopes import CALENDAR
from tests.support.security_events import post, refresh_token, seconds, send_event, state
from tests.support.waiting import eventually
from tests.support.world import ADA, GRACE, World

ALGORITHMS = ("prefix", "hash_base64_sha512_sha512")
ENDING = ("tokens-revoked", "sessions-revoked", "account-disabled")
WITHOUT_FINGERPRINTS = (
    "UPDATE pending_consents SET lookup_key_id = NULL, lookup_prefix = NULL, lookup_digest = NULL"
)


async def count_pending(world: World) -> int:
    return len(await world.sql("SELECT * FROM pending_consents"))


async def has_fingerprints(world: World) -> bool:
    (row,) = await world.sql("SELECT lookup_key_id FROM pending_consents")
    return row[0] is not None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_check_40_token_revoked_deletes_the_pending_consent_with_that_token(
    world: World, algorithm: str
) -> None:
    other = await world.connect_pending("user-2", account=GRACE)
    consent = await world.connect_pending()
    await send_event(
        world, "token-revoked", refresh_token=refresh_token(world), algorithm=algorithm
    )
    assert await count_pending(world) == 1
    answer = await world.confirm(consent)
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


async def test_a_grant_survives_when_the_token_of_its_pending_successor_is_revoked(
    world: World,
) -> None:
    await world.connect()
    await world.connect_pending(scopes=[CALENDAR])
    await send_event(world, "token-revoked", refresh_token=refresh_token(world))
    assert await count_pending(world) == 0
    assert await state(world) == [("user-1", "active", None, True)]


async def test_a_pending_consent_without_its_own_token_ends_with_the_grants_token(
    world: World,
) -> None:
    await world.connect(scopes=[CALENDAR])
    named = refresh_token(world)
    await world.connect_pending(login_hint=ADA, scopes=[CALENDAR])
    rows = await world.sql("SELECT sealed_refresh_token FROM pending_consents")
    assert [row[0] for row in rows] == [None]
    await send_event(world, "token-revoked", refresh_token=named)
    assert await count_pending(world) == 0
    assert (await world.grants())[0]["status"] == "reauthorization_required"


@pytest.mark.parametrize("event", [*ENDING, "account-credential-change-required"])
async def test_a_pending_consent_ended_by_an_account_event_is_audited(
    world: World, event: str
) -> None:
    consent = await world.connect_pending()
    await send_event(world, event)
    assert (await world.confirm(consent)).json()["code"] == "confirmation_invalid"
    (record,) = await audited(world, "security_event", f"{event}:consent_ended")
    assert (record["user_id"], record["scopes"] != []) == ("user-1", True)


@pytest.mark.parametrize("event", ENDING)
async def test_a_pending_consent_of_the_same_second_as_the_event_ends(
    world: World, event: str
) -> None:
    """Events are dated in whole seconds, consents in microseconds."""
    now = seconds(world)
    world.clock.advance(timedelta(milliseconds=900))
    await world.connect_pending()
    await send_event(world, event, claims={"iat": now})
    assert await count_pending(world) == 0


@pytest.mark.parametrize("event", ENDING)
async def test_a_pending_consent_newer_than_the_event_is_refreshed_after_confirmation(
    world: World, event: str
) -> None:
    consent = await world.connect_pending()
    await send_event(world, event, claims={"iat": seconds(world) - 30})
    assert (await world.confirm(consent)).status_code == 200
    refreshes = world.refreshes_at_google()
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_an_enabled_account_ends_no_pending_consent(world: World) -> None:
    consent = await world.connect_pending()
    await send_event(world, "account-enabled")
    assert (await world.confirm(consent)).status_code == 200


async def test_tokens_revoked_spares_a_pending_consent_of_another_project(world: World) -> None:
    await world.connect_pending()
    await world.connect("user-2", GRACE)
    await world.sql("UPDATE pending_consents SET client_id = '12-a.apps.example'")
    await world.sql("UPDATE grants SET client_id = '34-b.apps.example'")
    await send_event(world, "tokens-revoked", claims={"aud": "34-b.apps.example"})
    assert await count_pending(world) == 1


async def test_the_client_of_a_pending_consent_is_an_accepted_audience(world: World) -> None:
    await world.connect_pending()
    await world.sql("UPDATE pending_consents SET client_id = '12-a.apps.example'")
    await send_event(world, "tokens-revoked", claims={"aud": "12-a.apps.example"})
    assert await count_pending(world) == 0


@asynccontextmanager
async def _database_of(world: World) -> AsyncIterator[Database]:
    database = Database(world.settings.database_url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_pending_consent_of_an_older_release_is_found_after_the_backfill(
    world: World, algorithm: str
) -> None:
    await world.connect_pending()
    await world.sql(WITHOUT_FINGERPRINTS)
    keys = world.settings.secret_keys
    async with _database_of(world) as database:
        sealer = Sealer(local_sealing_keys(keys))
        await PendingFingerprintBackfill(database, sealer, TokenFingerprints(keys)).run()
    assert await has_fingerprints(world)
    await send_event(
        world, "token-revoked", refresh_token=refresh_token(world), algorithm=algorithm
    )
    assert await count_pending(world) == 0


async def test_the_backfill_does_not_write_fingerprints_of_a_replaced_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the backfill's read and write, the link brings another consent."""
    await world.connect_pending()
    await world.sql(WITHOUT_FINGERPRINTS)
    keys = world.settings.secret_keys
    async with _database_of(world) as database:
        fill = PendingFingerprintBackfill(
            database, Sealer(local_sealing_keys(keys)), TokenFingerprints(keys)
        )
        portion = fill._portion

        async def read_and_replaced(beyond: UUID) -> list[asyncpg.Record]:
            rows = await portion(beyond)
            await world.sql("UPDATE pending_consents SET sealed_refresh_token = 'another'::bytea")
            return rows

        monkeypatch.setattr(fill, "_portion", read_and_replaced)
        await fill.run()
    assert not await has_fingerprints(world)


async def test_keys_reseal_recomputes_fingerprints_with_the_first_key(world: World) -> None:
    await world.connect_pending()
    old = world.settings.secret_keys[0]
    keys = (Secret("n" * 40), old)
    async with _database_of(world) as database:
        await Resealer(database, Sealer(local_sealing_keys(keys)), TokenFingerprints(keys)).run()
        # A row that no key opens is skipped.
        alone = keys[:1]
        sealer = Sealer(local_sealing_keys(alone))
        await PendingFingerprintBackfill(database, sealer, TokenFingerprints((old,))).run()
    (row,) = await world.sql("SELECT * FROM pending_consents")
    made = TokenFingerprints(keys).compute(Secret(refresh_token(world)))
    values = (row["lookup_key_id"], row["lookup_prefix"], row["lookup_digest"])
    assert values == (made.key_id, made.prefix, made.digest)


async def test_check_18_the_fingerprints_of_a_pending_consent_reveal_nothing_of_its_token(
    world: World,
) -> None:
    await world.connect_pending()
    (row,) = await world.sql("SELECT p::text FROM pending_consents p")
    token = refresh_token(world)
    assert token[:16] not in row[0]
    assert token[:16].encode().hex() not in row[0]


async def test_a_confirmation_concurrent_with_token_revoked_leaves_no_working_grant(
    world: World,
) -> None:
    for number in range(8):
        user_id = f"user-{number}"
        consent = await world.connect_pending(user_id)
        named = world.standin.security_event(
            "token-revoked", refresh_token=refresh_token(world), algorithm="prefix"
        )
        _, answer = await asyncio.gather(world.confirm(consent), post(world, named))
        assert answer.status_code == 202
        for grant in await world.grants(user_id):
            assert grant["status"] == "reauthorization_required"


REFRESH_TOKEN_SURVIVES = (
    "sessions-revoked",
    "account-credential-change-required",
    "account-disabled",
)
"""Events about which Google does not revoke refresh tokens."""


async def _no_token_is_alive(world: World) -> bool:
    with world.standin.state.lock:
        is_alive = world.standin.state.refresh_tokens != {}
    return not is_alive and await world.sql("SELECT 1 FROM pending_revocations") == []


@pytest.mark.parametrize("event", REFRESH_TOKEN_SURVIVES)
async def test_the_token_of_a_pending_consent_that_an_event_ends_is_revoked_at_google(
    world: World, event: str
) -> None:
    for user_id in ("user-1", "user-2"):
        await world.connect_pending(user_id)
    await send_event(world, event)
    assert await count_pending(world) == 0
    await eventually(lambda: _no_token_is_alive(world))


@pytest.mark.parametrize("event", REFRESH_TOKEN_SURVIVES)
async def test_ending_a_pending_consent_does_not_revoke_a_grant_of_its_account(
    world: World, event: str
) -> None:
    await world.connect()
    await world.connect_pending("user-2")
    await send_event(world, event)
    assert await count_pending(world) == 0
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert world.standin.requests.count("revoke") == 0


async def test_no_revocation_is_sent_for_tokens_that_google_revoked(world: World) -> None:
    await world.connect_pending()
    named = refresh_token(world)
    await send_event(world, "token-revoked", refresh_token=named, algorithm="prefix")
    await world.connect_pending()
    await send_event(world, "tokens-revoked")
    assert await count_pending(world) == 0
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert world.standin.requests.count("revoke") == 0
