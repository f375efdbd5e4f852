"""The checks of storage: attackers who can read, or even write, the database."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from broker.app import StartError, assembled
from broker.settings import SettingsError, load_settings
from devstack.google_standin import Fault
from tests.support.audit import tamper
from tests.support.clock import ManualClock
from tests.support.probes import assert_hidden, consent_at_google, everything_stored, exchanges
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, GRACE, RETURN_TO, World, environment, open_world

Reopen = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def restarted(world: World, tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Reopen:
    """Another broker on the same database, with an empty cache."""

    @asynccontextmanager
    async def restart(**changes: str) -> AsyncIterator[World]:
        folder, url = tmp_path_factory.mktemp("again"), world.settings.database_url.reveal()
        async with open_world(folder, url, world.standin, clock, changes=changes) as again:
            yield again

    return restart


async def two_users(world: World) -> None:
    """Grants of Ada and Grace, each with a token in the table."""
    world.standin.add_account(GRACE)
    for user_id, account in (("ada", ADA), ("grace", GRACE)):
        await world.connect(user_id, account)
        assert (await world.token(user_id)).status_code == 200


async def assert_unusable(world: World, user_id: str) -> None:
    """Fail unless the user gets no token, Google gets no request, and the grant stays active."""
    asked = world.refreshes_at_google()
    answer = await world.token(user_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert world.refreshes_at_google() == asked


async def test_check_18_no_column_holds_a_token_in_any_encoding(world: World) -> None:
    await two_users(world)
    await world.revoke("grace")
    async with world.browser() as browser:
        link = (await world.create_link("user-3")).json()["url"]
        await browser.get(link)
        secrets = [*browser.cookies.values(), link.partition("link=")[2]]
    stored = await everything_stored(world)
    assert ADA in stored, "the search can find what is there"
    for secret in [*secrets, *world.standin.issued.all(), world.key]:
        assert_hidden(secret, stored)


async def test_check_19_a_refresh_token_moved_to_another_row_does_not_open(
    world: World, restarted: Reopen
) -> None:
    await two_users(world)
    await world.sql("DELETE FROM access_tokens")
    await world.sql(
        "UPDATE grants SET sealed_refresh_token = (SELECT sealed_refresh_token FROM grants"
        " WHERE user_id = 'ada') WHERE user_id = 'grace'"
    )
    async with restarted() as again:
        await assert_unusable(again, "grace")
        assert (await again.token("ada")).status_code == 200


async def test_check_19_a_token_of_a_row_assigned_to_another_user_does_not_open(
    world: World, restarted: Reopen
) -> None:
    await two_users(world)
    await world.sql("UPDATE grants SET user_id = 'mallory' WHERE user_id = 'ada'")
    async with restarted() as again:
        await assert_unusable(again, "mallory")
        assert (await again.token("ada")).json()["code"] == "grant_not_found"


async def test_check_19_a_token_of_a_row_assigned_to_another_account_does_not_open(
    world: World, restarted: Reopen
) -> None:
    await two_users(world)
    await world.sql("UPDATE grants SET google_sub = 'another' WHERE user_id = 'ada'")
    async with restarted() as again:
        await assert_unusable(again, "ada")


async def test_check_19_a_refresh_token_in_a_forged_row_does_not_open(
    world: World, restarted: Reopen
) -> None:
    """Another row with the same user and account."""
    await world.connect("user-1")
    await tamper(
        world.settings.database_url.reveal(),
        "DELETE FROM access_tokens",
        "UPDATE grants SET id = gen_random_uuid()",
    )
    async with restarted() as again:
        await assert_unusable(again, "user-1")


async def test_check_19_an_access_token_moved_to_another_grant_is_not_returned(
    world: World, restarted: Reopen
) -> None:
    await two_users(world)
    await world.sql("DELETE FROM access_tokens a USING grants g WHERE g.id = a.grant_id"
                    " AND g.user_id = 'grace'")  # fmt: skip
    stolen = (await world.token("ada")).json()["access_token"]
    await world.sql(
        "UPDATE access_tokens SET grant_id = (SELECT id FROM grants WHERE user_id = 'grace')"
    )
    async with restarted() as again:
        answer = await again.token("grace")
        assert answer.status_code == 200
        assert answer.json()["access_token"] != stolen
        assert answer.json()["account"]["email"] == GRACE


async def test_check_19_an_access_token_stored_under_other_scopes_is_not_returned(
    world: World, restarted: Reopen
) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    wide = (await world.token(scope=CALENDAR)).json()["access_token"]
    await world.sql(
        "UPDATE access_tokens SET scope_set = $1, scopes = ARRAY[$1] WHERE scope_set = $2",
        CALENDAR_READONLY,
        CALENDAR,
    )
    async with restarted() as again:
        answer = (await again.token(scope=CALENDAR_READONLY)).json()
    assert answer["access_token"] != wide
    assert answer["scope"] == CALENDAR_READONLY


async def test_check_19_a_token_moved_to_another_column_does_not_open(
    world: World, restarted: Reopen
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    (row,) = await world.sql("SELECT sealed_refresh_token FROM grants")
    await world.sql("UPDATE access_tokens SET sealed_access_token = $1", row[0])
    async with restarted() as again:
        answer = await again.token()
    assert answer.status_code == 200
    assert answer.json()["access_token"] not in world.standin.issued.refresh_tokens


async def test_check_19_an_altered_ciphertext_does_not_open(
    world: World, restarted: Reopen
) -> None:
    await world.connect()
    await world.sql("DELETE FROM access_tokens")
    length = (await world.sql("SELECT length(sealed_refresh_token) FROM grants"))[0][0]
    for position in (0, 1, 12, 13, length // 2, length - 1):
        flip = (
            "UPDATE grants SET sealed_refresh_token = set_byte(sealed_refresh_token, $1::int,"
            " get_byte(sealed_refresh_token, $1::int) # 1)"
        )
        await world.sql(flip, position)
        async with restarted() as again:
            await assert_unusable(again, "user-1")
        await world.sql(flip, position)
    async with restarted() as again:
        assert (await again.token()).status_code == 200


REVOCATIONS_MOVED = {
    "token": "UPDATE pending_revocations p SET sealed_token = o.sealed_token"
    " FROM pending_revocations o WHERE o.id <> p.id",
    "account": "UPDATE pending_revocations p SET google_sub = o.google_sub"
    " FROM pending_revocations o WHERE o.id <> p.id",
    "row": "UPDATE pending_revocations SET id = gen_random_uuid()",
}


@pytest.mark.parametrize("move", REVOCATIONS_MOVED.values(), ids=REVOCATIONS_MOVED)
async def test_check_19_a_revocation_assigned_to_another_account_does_not_open(
    world: World, restarted: Reopen, move: str
) -> None:
    world.standin.faults.always("revoke", Fault.http(503))
    await two_users(world)
    await world.revoke("ada")
    await world.revoke("grace")

    async def has_been_refused() -> bool:
        """True once Google has refused both, so that no row was read before the move."""
        return await world.metric("broker_revocations_total", outcome="retried") >= 2

    await eventually(has_been_refused)
    await world.sql(move)
    living = set(world.standin.state.refresh_tokens)
    world.standin.faults.clear("revoke")
    async with restarted() as again:

        async def is_tried() -> bool:
            again.clock.advance(timedelta(minutes=1))
            return await again.metric("broker_revocations_total", outcome="retried") >= 2

        await eventually(is_tried)
    assert set(world.standin.state.refresh_tokens) == living
    assert len(living) == 2


async def test_check_19_a_pending_consent_moved_to_another_column_or_user_does_not_open(
    world: World,
) -> None:
    for spoil in (
        "sealed_access_token = sealed_refresh_token, access_token_key_id = refresh_token_key_id",
        "sealed_refresh_token = sealed_access_token, refresh_token_key_id = access_token_key_id",
        "user_id = 'mallory'",
        "google_sub = '1'",
    ):
        consent = await world.connect_pending()
        await world.sql(f"UPDATE pending_consents SET {spoil}")
        answer = await world.confirm(consent)
        assert (answer.status_code, answer.json()["code"]) == (409, "confirmation_invalid"), spoil
        assert await world.sql("SELECT * FROM grants") == []


async def test_check_19_moved_secrets_of_an_authorization_request_do_not_open(world: World) -> None:
    async with (
        consent_at_google(world, "user-1") as (browser, callback),
        consent_at_google(world, "user-2") as (other, others_callback),
    ):
        await world.sql(
            "UPDATE consent_transactions t SET sealed_secrets = o.sealed_secrets"
            " FROM consent_transactions o WHERE o.link_id <> t.link_id"
        )
        assert (await browser.get(callback)).status_code == 400
        assert (await other.get(others_callback)).status_code == 400
    assert exchanges(world) == 0
    assert await world.sql("SELECT * FROM grants") == []


async def test_check_19_a_link_assigned_to_another_user_connects_nothing(world: World) -> None:
    """An attacker who writes the table must not make a victim consent in the attacker's name."""
    for user_id in ("opened-later", "at-google"):
        async with world.browser() as browser:
            link = (await world.create_link(user_id)).json()["url"]
            to_google = await browser.get(link) if user_id == "at-google" else None
            await world.sql("UPDATE connect_links SET user_id = 'mallory'")
            if to_google is None:
                answer = await browser.get(link)
            else:
                callback = world.standin.consent(to_google.headers["location"], ADA)
                answer = await browser.get(callback)
            assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert exchanges(world) == 0
    assert await world.sql("SELECT * FROM grants") == []


async def test_check_19_an_authorization_request_assigned_to_another_browser_is_refused(
    world: World,
) -> None:
    async with (
        consent_at_google(world, "mallory") as (_, callback),
        consent_at_google(world, "victim") as (victim, _),
    ):
        await world.sql(
            "UPDATE consent_transactions SET browser_hash ="
            " (SELECT browser_hash FROM connect_links WHERE user_id = 'victim')"
        )
        assert (await victim.get(callback)).status_code == 400
    assert exchanges(world) == 0
    assert await world.sql("SELECT * FROM grants") == []


async def test_check_19_removing_the_confirmation_of_a_link_has_no_effect(
    world: World,
) -> None:
    async with world.browser() as browser:
        made = await world.create_link("user-1", confirm=True, return_to=RETURN_TO)
        await world.sql("UPDATE connect_links SET confirm = false")
        to_google = await browser.get(made.json()["url"])
        callback = world.standin.consent(to_google.headers["location"], ADA)
        assert "confirmation=" in (await browser.get(callback)).headers["location"]
    assert (await world.token()).json()["code"] == "confirmation_pending"


async def test_check_20_old_keys_open_tokens_and_the_first_key_seals_new_ones(
    world: World, restarted: Reopen
) -> None:
    await world.connect()
    old = world.settings.secret_keys[0].reveal()
    async with restarted(SECRET_KEY=f"{'n' * 40},{old}") as again:
        assert (await again.token(min_ttl=86_400)).status_code == 200
        ids = await world.sql(
            "SELECT refresh_token_key_id FROM grants"
            " UNION ALL SELECT access_token_key_id FROM access_tokens ORDER BY 1"
        )
        assert len({row[0] for row in ids}) == 2


async def test_check_21_with_another_key_no_token_opens_and_none_is_lost(
    world: World, restarted: Reopen
) -> None:
    await world.connect()
    async with restarted(SECRET_KEY="another-key-altogether-of-32-bytes-and-more") as again:
        await assert_unusable(again, "user-1")
        assert (await again.grants())[0]["status"] == "active"
    async with restarted() as again:
        assert (await again.token()).status_code == 200


@pytest.mark.parametrize("key", ["", "short", ",", "x" * 31, f"{'x' * 40},short"])
def test_check_21_without_a_valid_key_the_broker_does_not_start(world: World, key: str) -> None:
    settings = environment("postgresql://db", world.standin, world.callers_file)
    with pytest.raises(SettingsError) as refusal:
        load_settings(settings | {"SECRET_KEY": key})
    assert "SECRET_KEY" in str(refusal.value)
    assert key == "" or "x" * 31 not in str(refusal.value)


async def test_check_21_without_the_secret_source_the_broker_does_not_start(
    world: World, tmp_path: Path
) -> None:
    url = world.settings.database_url.reveal()
    settings = environment(url, world.standin, world.callers_file) | {
        "BROKER_SECRET_SOURCE": "file",
        "GOOGLE_CREDENTIALS_FILE": str(tmp_path / "missing.json"),
    }
    with pytest.raises(StartError, match="can't be read"):
        async with assembled(load_settings(settings)):
            pytest.fail("it started")


async def test_check_22_no_answer_contains_a_refresh_token(world: World) -> None:
    await world.connect()
    answers = [
        await world.token(),
        await world.token(min_ttl=86_400),
        await world.create_link("user-1"),
        await world.internal.get("/v1/users/user-1/grants", headers=world.authorization),
        await world.revoke(),
        (await world.connect()).response,
        await world.ops.get("/metrics"),
        await world.ops.get("/readyz"),
    ]
    assert world.standin.issued.refresh_tokens
    for answer in answers:
        assert "refresh_token" not in json.dumps(answer.text).replace("refresh_token_", "")
        for token in world.standin.issued.refresh_tokens:
            assert_hidden(token, answer.text, str(answer.headers))
