"""Token requests during failures: the table of the contract, for one replica."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from broker.app import process_context as ground
from broker.database.database import StorageUnavailable
from broker.grants.store import GrantStore
from broker.secret_sources.current_client import CurrentClient
from broker.tokens.dispenser import SharedGrantReads
from broker.tokens.refresh import circuit_breaker as breaker
from devstack.google_standin import Fault
from devstack.postgres import EmbeddedPostgres
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, CLIENT_ID, CLIENT_SECRET, World, open_world
from tests.tokens.test_batch_routes import ask, of

TRANSIENT = [
    Fault.http(500),
    Fault.http(502, "<html>bad gateway</html>", {"Content-Type": "text/html"}),
    Fault.http(503),
    Fault.http(504),
    Fault.http(408),
    Fault.rate_limited(retry_after=1),
    Fault.html_403(),
    Fault.internal_failure(),
    Fault.drop(),
    Fault.half(),
    Fault.not_json(),
    Fault.without("expires_in"),
    Fault.without("access_token"),
    Fault.replacing(expires_in=-5),
    Fault.replacing(token_type="mac"),
    Fault.http(500, '{"error": "invalid_grant"}', {"Content-Type": "application/json"}),
]


async def _nearly_expired(world: World) -> str:
    """Return a cached token that is valid, but for less than the default `min_ttl`."""
    await world.connect()
    token: str = (await world.token()).json()["access_token"]
    world.clock.advance(timedelta(minutes=59, seconds=30))
    return token


async def _expired(world: World) -> None:
    await world.connect()
    await world.token()
    world.clock.advance(timedelta(hours=1))


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.kind}")
async def test_a_valid_token_is_served_while_google_fails(world: World, fault: Fault) -> None:
    token = await _nearly_expired(world)
    world.standin.faults.always("token", fault)
    answer = await world.token()
    assert answer.status_code == 200
    assert answer.json()["access_token"] == token
    assert 0 < answer.json()["expires_in"] <= 30


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.kind}")
async def test_without_a_valid_token_the_answer_is_503_and_the_grant_is_unchanged(
    world: World, fault: Fault
) -> None:
    await _expired(world)
    world.standin.faults.always("token", fault)
    answer = await world.token()
    assert (answer.status_code, answer.json()["code"]) == (503, "google_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await world.grants())[0]["status"] == "active"


async def test_an_outage_causes_no_storm_of_retries(world: World) -> None:
    await _expired(world)
    world.standin.faults.always("token", Fault.http(503))
    before = world.refreshes_at_google()
    for _ in range(30):
        assert (await world.token()).status_code == 503
    assert world.refreshes_at_google() == before + 1


async def test_recovery_is_noticed_within_seconds(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.http(503))
    assert (await world.token()).status_code == 503
    world.clock.advance(timedelta(seconds=2))
    assert (await world.token()).status_code == 200


async def test_a_clock_that_is_set_back_prolongs_no_pause(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.http(503))
    assert (await world.token()).status_code == 503
    world.clock.advance(timedelta(minutes=-5))
    await world.sql("DELETE FROM access_tokens")
    assert (await world.token(min_ttl=600)).json()["expires_in"] > 600


async def test_googles_retry_after_is_obeyed(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.rate_limited(retry_after=30))
    assert (await world.token()).headers["retry-after"] == "30"
    world.clock.advance(timedelta(seconds=29))
    assert (await world.token()).status_code == 503
    world.clock.advance(timedelta(seconds=2))
    assert (await world.token()).status_code == 200


async def test_check_35_a_silent_google_does_not_delay_a_request_with_a_valid_token(
    world: World,
) -> None:
    token = await _nearly_expired(world)
    world.standin.faults.next("token", Fault.hold("silence"))
    # A call to Google itself times out after eight seconds.
    async with asyncio.timeout(7):
        answer = await world.token()
    assert answer.json()["access_token"] == token
    world.standin.holds.release("silence")


@pytest.mark.parametrize("subtype", [None, "invalid_rapt"])
async def test_invalid_grant_is_marked_once_and_google_is_not_called_again(
    world: World, subtype: str | None
) -> None:
    await _expired(world)
    world.standin.faults.always("token", Fault.invalid_grant(subtype))
    before = world.refreshes_at_google()
    for _ in range(3):
        answer = await world.token()
        assert (answer.status_code, answer.json()["code"]) == (409, "reauthorization_required")
        assert answer.json()["reason"] == (subtype or "invalid_grant")
    assert world.refreshes_at_google() == before + 1
    assert (await world.grants())[0]["status"] == "reauthorization_required"


async def test_a_new_consent_restores_a_refused_grant(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token()).status_code == 409
    await world.connect()
    assert (await world.token()).status_code == 200
    (grant,) = await world.grants()
    assert grant["status"] == "active"
    assert "reason" not in grant


@pytest.mark.parametrize(
    "fault", [Fault.invalid_client(), Fault.unauthorized_client(), Fault.deleted_client()]
)
async def test_a_misconfigured_client_changes_no_grant(world: World, fault: Fault) -> None:
    await _expired(world)
    world.standin.faults.always("token", fault)
    before = world.refreshes_at_google()
    answer = await world.token()
    assert (answer.status_code, answer.json()["code"]) == (503, "client_misconfigured")
    assert "retry-after" in answer.headers
    assert (await world.grants())[0]["status"] == "active"
    assert (await world.token()).status_code == 503
    assert world.refreshes_at_google() == before + 1
    assert await world.metric("broker_token_refreshes_total", outcome="client_refused") == 1


async def test_a_valid_token_is_served_while_the_client_is_misconfigured(
    world: World,
) -> None:
    token = await _nearly_expired(world)
    world.standin.faults.always("token", Fault.invalid_client())
    assert (await world.token()).json()["access_token"] == token


async def test_a_fixed_secret_is_read_without_a_restart(
    tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    secret_file = tmp_path_factory.mktemp("secret") / "client_secret"
    secret_file.write_text(CLIENT_SECRET)
    changes = {"GOOGLE_CLIENT_SECRET": "", "GOOGLE_CLIENT_SECRET_FILE": str(secret_file)}
    folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, world.clock, changes=changes) as other:
        await _expired(other)
        world.standin.change_client_secret(CLIENT_ID, "GOCSPX-rotated")
        assert (await other.token()).json()["code"] == "client_misconfigured"
        secret_file.write_text("GOCSPX-rotated")
        other.clock.advance(timedelta(seconds=6))
        assert (await other.token()).status_code == 200


async def test_a_grant_of_another_client_is_a_misconfiguration(
    tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    await _expired(world)
    folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
    world.standin.add_client("another-client", "s3cret", [])
    changes = {"GOOGLE_CLIENT_ID": "another-client", "GOOGLE_CLIENT_SECRET": "s3cret"}
    async with open_world(folder, url, world.standin, world.clock, changes=changes) as other:
        world.standin.faults.always("token", Fault.invalid_grant())
        assert (await other.token()).json()["code"] == "client_misconfigured"
        assert (await other.grants())[0]["status"] == "active"


async def test_a_token_with_more_scopes_than_requested_is_never_handed_out(world: World) -> None:
    await _expired(world)
    wider = f"{CALENDAR_READONLY} https://www.googleapis.com/auth/calendar"
    world.standin.faults.next("token", Fault.replacing(scope=wider))
    answer = await world.token()
    assert (answer.status_code, answer.json()["code"]) == (503, "google_unavailable")


async def test_a_token_with_added_identity_scopes_is_served_and_names_them(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.replacing(scope=f"openid email {CALENDAR_READONLY}"))
    answer = await world.token()
    assert answer.status_code == 200
    assert answer.json()["scope"] == f"openid email {CALENDAR_READONLY}"


async def test_an_answer_without_scope_has_the_requested_scopes(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.without("scope"))
    assert (await world.token()).json()["scope"] == CALENDAR_READONLY


async def test_a_scope_that_google_left_out_is_named(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.replacing(scope="openid"))
    answer = await world.token(scope=CALENDAR_READONLY)
    assert (answer.status_code, answer.json()["missing"]) == (409, [CALENDAR_READONLY])


async def test_an_omitted_refresh_token_keeps_the_old_one(world: World) -> None:
    for _ in range(3):
        await _expired(world)
        assert (await world.token()).status_code == 200


async def test_a_rotated_refresh_token_replaces_the_old_one(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(hours=1))
    assert (await world.token()).status_code == 200


async def test_a_refusal_of_a_token_that_another_refresh_replaced_does_not_end_the_grant(
    world: World,
) -> None:
    """Google refuses the old token before another refresh has written the new one."""
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.rotate_refresh_token(hold="rotated"))
    first = asyncio.create_task(world.token(scope=CALENDAR))
    await asyncio.to_thread(world.standin.holds.wait_until_held, "rotated")
    second = asyncio.create_task(world.token(scope=CALENDAR_READONLY))
    await _refused(world)
    world.standin.holds.release("rotated")
    assert (await first).status_code == 200
    assert (await second).status_code == 200
    assert [grant["status"] for grant in await world.grants()] == ["active"]


async def test_two_refusals_for_different_scopes_end_the_grant_immediately(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.always("token", Fault.invalid_grant())
    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            world.token(scope=CALENDAR), world.token(scope=CALENDAR_READONLY)
        )
    assert [answer.json()["code"] for answer in answers] == ["reauthorization_required"] * 2
    assert world.refreshes_at_google() <= 4


async def _refused(world: World) -> None:
    """Return once the broker has counted that Google refused a grant."""

    async def is_counted() -> bool:
        name = "broker_google_requests_total"
        return await world.metric(name, endpoint="token", outcome="invalid_grant") > 0

    await eventually(is_counted)


async def test_cached_tokens_are_served_while_postgresql_is_unavailable(
    tmp_path_factory: pytest.TempPathFactory, world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    async with _database_unavailable(world, postgres):
        assert (await world.token()).json()["access_token"] == token
        world.clock.advance(timedelta(minutes=59, seconds=30))
        late = await world.token()
        assert late.json()["access_token"] == token


@pytest.mark.parametrize("is_batch", [False, True], ids=["single", "batch"])
async def test_a_request_whose_read_fails_gets_the_token_that_another_fetched_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, is_batch: bool
) -> None:
    old = await _nearly_expired(world)
    fails, may_fail = asyncio.Event(), asyncio.Event()

    async def fails_late(*_: object) -> None:
        # All later reads succeed.
        patched.undo()
        fails.set()
        await may_fail.wait()
        raise StorageUnavailable("gone")

    with monkeypatch.context() as patched:
        owner, name = (GrantStore, "find_many") if is_batch else (SharedGrantReads, "read")
        patched.setattr(owner, name, fails_late)
        waiting = asyncio.create_task(ask(world, of()) if is_batch else world.token())
        await fails.wait()
        new = (await world.token()).json()["access_token"]
        may_fail.set()
        answer = (await waiting).json()
    served = answer["results"][0] if is_batch else answer
    assert served["access_token"] == new != old


async def test_without_a_cached_token_the_answer_is_503_while_postgresql_is_unavailable(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    async with _database_unavailable(world, postgres):
        answer = await world.token()
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert "retry-after" in answer.headers
    assert (await world.token()).status_code == 200


async def test_a_revocation_fails_while_postgresql_is_unavailable(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    async with _database_unavailable(world, postgres):
        answer = await world.revoke()
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")


async def test_soon_after_an_outage_of_postgresql_a_refused_grant_is_not_marked(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await _expired(world)
    async with _database_unavailable(world, postgres):
        assert (await world.token()).json()["code"] == "storage_unavailable"
    # Another replica may have the refresh token that replaced this one.
    world.standin.faults.next("token", Fault.invalid_grant())
    answer = await world.token()
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert (await world.grants())[0]["status"] == "active"
    world.clock.advance(timedelta(seconds=1))
    assert (await world.token()).status_code == 200


class _database_unavailable:  # noqa: N801  (reads as a sentence)
    """Refuse connections to the test's database, and close those that exist."""

    def __init__(self, world: World, postgres: EmbeddedPostgres) -> None:
        self._database = world.settings.database_url.reveal().rsplit("/", 1)[1].split("?")[0]
        self._postgres = postgres

    async def __aenter__(self) -> None:
        await self._allow(False)
        await asyncio.to_thread(
            self._postgres.execute,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{self._database}'",
        )

    async def __aexit__(self, *_: object) -> None:
        await self._allow(True)

    async def _allow(self, allowed: bool) -> None:
        await asyncio.to_thread(
            self._postgres.execute,
            f'ALTER DATABASE "{self._database}" ALLOW_CONNECTIONS {str(allowed).lower()}',
        )


async def test_access_tokens_in_memory_mode_are_never_written(
    tmp_path_factory: pytest.TempPathFactory, world: World, clock: ManualClock
) -> None:
    folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
    async with open_world(
        folder, url, world.standin, clock, changes={"BROKER_ACCESS_TOKENS": "memory"}
    ) as other:
        await other.connect()
        first = (await other.token()).json()["access_token"]
        assert (await other.token(min_ttl=10)).json()["access_token"] == first
        assert other.refreshes_at_google() == 1
        assert await other.sql("SELECT * FROM access_tokens") == []


async def test_a_restart_serves_the_sealed_tokens_while_google_is_down(
    tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    world.standin.stop()
    try:
        folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
        async with open_world(folder, url, world.standin, world.clock) as restarted:
            assert (await restarted.token()).json()["access_token"] == token
    finally:
        world.standin.start()
    assert world.standin.account(ADA)


@pytest.mark.parametrize(
    "fault", [Fault.unauthorized_client(), Fault.error("org_internal", status=403)]
)
async def test_a_refusal_about_one_account_stops_no_other(world: World, fault: Fault) -> None:
    await world.connect("user-1", ADA)
    await world.connect("user-2", "grace@example.com")
    world.standin.faults.always("token", fault, account=ADA)
    for _ in range(3):
        world.clock.advance(timedelta(hours=1))
        assert (await world.token("user-1")).json()["code"] == "client_misconfigured"
        assert (await world.token("user-2")).status_code == 200
    assert (await world.grants("user-1"))[0]["status"] == "active"


async def test_invalid_grant_to_a_client_that_was_swapped_by_mistake_marks_nothing(
    tmp_path_factory: pytest.TempPathFactory, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default is ten seconds.
    often = partial(CurrentClient, poll_every=timedelta(seconds=0.2))
    monkeypatch.setattr(ground, "CurrentClient", often)
    await _expired(world)
    folder = tmp_path_factory.mktemp("other")
    client_id = folder / "client_id"
    client_id.write_text("another-client")
    world.standin.add_client("another-client", CLIENT_SECRET, [])
    changes = {"GOOGLE_CLIENT_ID": "", "GOOGLE_CLIENT_ID_FILE": str(client_id)}
    url = world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, world.clock, changes=changes) as other:
        world.standin.faults.next("token", Fault.hold("slow"))
        world.standin.faults.always("token", Fault.invalid_grant(), client_id="another-client")
        asking = asyncio.create_task(other.token())
        await asyncio.to_thread(world.standin.holds.wait_until_held, "slow")
        client_id.write_text(CLIENT_ID)

        async def is_fixed() -> bool:
            return await other.metric("broker_client_secret_version") >= 2

        await eventually(is_fixed, seconds=20)
        world.standin.holds.release("slow")
        await asking
        assert (await other.grants())[0]["status"] == "active"


async def test_a_token_that_lacks_a_requested_scope_is_refused_each_time(world: World) -> None:
    await _expired(world)
    world.standin.faults.next("token", Fault.replacing(scope="openid"))
    for _ in range(3):
        assert (await world.token(scope=CALENDAR_READONLY)).status_code == 409


async def test_a_token_that_cannot_be_written_is_served_and_fetched_once(world: World) -> None:
    await _expired(world)
    before = world.refreshes_at_google()
    await world.sql(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$
        """
    )
    await world.sql(
        "CREATE TRIGGER full_disk BEFORE INSERT ON access_tokens FOR EACH ROW "
        "EXECUTE FUNCTION refuse()"
    )
    tokens = [(await world.token()).json()["access_token"] for _ in range(10)]
    assert len(set(tokens)) == 1
    assert world.refreshes_at_google() == before + 1
    await world.sql("DROP TRIGGER full_disk ON access_tokens")

    async def is_written() -> bool:
        rows = await world.sql("SELECT FROM access_tokens WHERE expires_at > $1", world.clock.now())
        return bool(rows)

    await eventually(is_written)


async def test_a_slow_answer_is_cached_for_the_next_request_in_memory_mode_too(
    tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
    changes = {"BROKER_ACCESS_TOKENS": "memory"}
    async with open_world(folder, url, world.standin, world.clock, changes=changes) as other:
        stale = await _nearly_expired(other)
        before = other.refreshes_at_google()
        other.standin.faults.next("token", Fault.hold("slow"))
        assert (await other.token()).json()["access_token"] == stale
        other.standin.holds.release("slow")

        async def is_fresh() -> bool:
            return bool((await other.token()).json()["access_token"] != stale)

        await eventually(is_fresh)
        assert other.refreshes_at_google() == before + 1


async def _expired_for_many(world: World) -> list[str]:
    users = [f"user-{n}" for n in range(20)]
    for user in users:
        account = world.standin.add_account(f"{user}@example.com")
        await world.connect(user, account=account.email)
    world.clock.advance(timedelta(hours=1))
    return users


async def _recovered(world: World, users: list[str], *, after: timedelta) -> None:
    world.standin.faults.clear()
    world.clock.advance(after)
    for user in users:
        assert (await world.token(user)).status_code == 200


async def test_an_outage_of_google_is_probed_by_few_grants(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "_PACE_SECONDS", 0.0)
    # However slow the machine is, the next request comes before a fourth probe may follow.
    users = await _expired_for_many(world)
    world.standin.faults.always("token", Fault.http(503))
    before = world.refreshes_at_google()
    for user in users[:8]:
        assert (await world.token(user)).json()["code"] == "google_unavailable"
    assert world.refreshes_at_google() - before == 8
    monkeypatch.setattr(breaker, "_PACE_SECONDS", 600.0)
    for user in users[8:]:
        assert (await world.token(user)).json()["code"] == "google_unavailable"
    assert world.refreshes_at_google() - before == 9
    await _recovered(world, users, after=timedelta(seconds=7))


@pytest.mark.parametrize("fault", [Fault.rate_limited(retry_after=60), Fault.html_403()])
async def test_errors_for_some_accounts_stop_no_other(world: World, fault: Fault) -> None:
    *unlucky, lucky = await _expired_for_many(world)
    for user in unlucky:
        world.standin.faults.always("token", fault, account=f"{user}@example.com")
    before = world.refreshes_at_google()
    for _ in range(2):
        for user in unlucky:
            assert (await world.token(user)).json()["code"] == "google_unavailable"
    assert world.refreshes_at_google() - before == len(unlucky)
    assert (await world.token(lucky)).status_code == 200
    await _recovered(world, unlucky, after=timedelta(seconds=61))


async def test_accounts_that_always_fail_stop_no_other(world: World) -> None:
    *unlucky, lucky = await _expired_for_many(world)
    for user in unlucky[:6]:
        world.standin.faults.always("token", Fault.http(500), account=f"{user}@example.com")
        assert (await world.token(user)).json()["code"] == "google_unavailable"
    assert (await world.token(lucky)).status_code == 200


async def test_a_throttled_account_is_backed_off_for_all_its_scopes(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.always("token", Fault.rate_limited(retry_after=60))
    before = world.refreshes_at_google()
    for scope in (CALENDAR, CALENDAR_READONLY):
        assert (await world.token(scope=scope)).json()["code"] == "google_unavailable"
    assert world.refreshes_at_google() - before == 1


async def test_a_refresh_is_audited_with_its_requester(world: World) -> None:
    await world.connect()
    answer = await world.token()

    async def is_recorded() -> bool:
        rows = await world.sql(
            "SELECT caller, request_id FROM audit_events WHERE action = 'token_refreshed'"
        )
        return [tuple(row) for row in rows] == [("calendar-sync", answer.headers["x-request-id"])]

    await eventually(is_recorded)


async def test_a_malformed_request_is_audited(world: World) -> None:
    await world.token(min_ttl="soon")

    async def is_recorded() -> bool:
        rows = await world.sql("SELECT FROM audit_events WHERE outcome = 'invalid_request'")
        return len(rows) == 1

    await eventually(is_recorded)
