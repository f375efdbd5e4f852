"""Several replicas on one database: they share refreshes, failures and changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import pytest

from broker.grants import change_feed as grant_changes
from broker.grants.pending_consents.store import PendingConsents
from broker.grants.store import GrantStore
from broker.tokens.cache.token_cache import TokenCache
from devstack.google_standin import Fault
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import World, open_world


@pytest.fixture
async def replicas(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[World]]:
    """Three brokers that share nothing but PostgreSQL."""
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(
                open_world(
                    tmp_path_factory.mktemp("replica"),
                    world.settings.database_url.reveal(),
                    world.standin,
                    world.clock,
                )
            )
            for _ in range(2)
        ]
        yield [world, *others]


@pytest.fixture
def only_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas learn of a change by its notification, or not at all."""
    monkeypatch.setattr(grant_changes, "POLL_SECONDS", 3600.0)


@pytest.fixture
def invalidated(monkeypatch: pytest.MonkeyPatch) -> set[TokenCache]:
    """The caches that know version 2 of a grant. Request it before `replicas`."""
    known: set[TokenCache] = set()
    invalidate = TokenCache.invalidate_older

    def note(cache: TokenCache, user_id: str, grant_id: UUID, version: int) -> None:
        invalidate(cache, user_id, grant_id, version)
        if version == 2:
            known.add(cache)

    monkeypatch.setattr(TokenCache, "invalidate_older", note)
    return known


async def _expired(replicas: list[World]) -> None:
    await replicas[0].connect()
    for replica in replicas:
        assert (await replica.token()).status_code == 200
    replicas[0].clock.advance(timedelta(hours=1))


async def test_a_token_that_one_replica_fetched_is_served_by_all(replicas: list[World]) -> None:
    await replicas[0].connect()
    tokens = {(await replica.token()).json()["access_token"] for replica in replicas}
    assert len(tokens) == 1
    assert replicas[0].refreshes_at_google() == 1


async def test_at_expiry_there_is_one_refresh_among_all_replicas(replicas: list[World]) -> None:
    await _expired(replicas)
    before = replicas[0].refreshes_at_google()
    answers = await asyncio.gather(*(replica.token() for replica in replicas for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert replicas[0].refreshes_at_google() == before + 1


async def test_requests_that_wait_at_another_replica_are_woken(replicas: list[World]) -> None:
    await _expired(replicas)
    before = replicas[0].refreshes_at_google()
    replicas[0].standin.faults.next("token", Fault.hold("refresh"))
    asking = [asyncio.create_task(replica.token()) for replica in replicas]
    await asyncio.to_thread(replicas[0].standin.holds.wait_until_held, "refresh")
    replicas[0].standin.holds.release("refresh")
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3
    assert replicas[0].refreshes_at_google() == before + 1


async def test_a_failure_is_shared_and_not_repeated_by_each_replica(
    replicas: list[World],
) -> None:
    await _expired(replicas)
    before = replicas[0].refreshes_at_google()
    replicas[0].standin.faults.always("token", Fault.rate_limited(retry_after=20))
    for replica in replicas:
        answer = await replica.token()
        assert (answer.status_code, answer.json()["code"]) == (503, "google_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert replicas[0].refreshes_at_google() == before + 1


async def test_a_grant_that_google_refuses_is_refreshed_once(replicas: list[World]) -> None:
    await _expired(replicas)
    before = replicas[0].refreshes_at_google()
    replicas[0].standin.faults.always("token", Fault.invalid_grant())
    answers = await asyncio.gather(*(replica.token() for replica in replicas for _ in range(5)))
    assert {answer.json()["code"] for answer in answers} == {"reauthorization_required"}
    assert replicas[0].refreshes_at_google() == before + 1


async def _refuses(replica: World) -> bool:
    return (await replica.token()).status_code == 404


@pytest.mark.usefixtures("only_notifications")
async def test_check_39_a_revocation_at_one_replica_is_known_to_all_immediately(
    replicas: list[World],
) -> None:
    await replicas[0].connect()
    for replica in replicas:
        assert (await replica.token()).status_code == 200
    await replicas[0].revoke()
    for replica in replicas:
        await eventually(lambda replica=replica: _refuses(replica))  # type: ignore[misc]


async def test_check_39_a_replica_without_notifications_refuses_within_a_second(
    replicas: list[World],
) -> None:
    await replicas[0].connect()
    for replica in replicas:
        assert (await replica.token()).status_code == 200
    await replicas[0].sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'token-broker listener' AND datname = current_database()"
    )
    await replicas[0].revoke()
    # The poll that finds it has the rest of the second, except on a busy machine.
    assert grant_changes.POLL_SECONDS <= 0.5
    for replica in replicas:
        await eventually(lambda replica=replica: _refuses(replica))  # type: ignore[misc]


async def test_a_change_that_is_read_before_its_notification_drops_tokens_of_other_scopes(
    replicas: list[World],
) -> None:
    await replicas[0].connect(scopes=[CALENDAR, CALENDAR_READONLY])
    before = (await replicas[1].token()).json()["access_token"]
    await replicas[0].sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'token-broker listener' AND datname = current_database()"
    )
    await replicas[0].sql("DELETE FROM access_tokens")
    await replicas[0].sql("UPDATE grants SET version = version + 1")
    assert (await replicas[1].token(scope=CALENDAR_READONLY)).status_code == 200

    async def is_another() -> bool:
        return bool((await replicas[1].token()).json()["access_token"] != before)

    await eventually(is_another)


@pytest.mark.usefixtures("only_notifications")
async def test_a_consent_at_one_replica_widens_the_tokens_of_the_others(
    replicas: list[World],
) -> None:
    await replicas[0].connect(scopes=[CALENDAR_READONLY])
    assert (await replicas[1].token()).json()["scope"] == CALENDAR_READONLY
    await replicas[0].connect(scopes=[CALENDAR])

    async def is_wider() -> bool:
        return CALENDAR in (await replicas[1].token()).json()["scope"].split()

    await eventually(is_wider)


async def test_check_34_a_lease_whose_holder_died_is_taken_over(replicas: list[World]) -> None:
    await _expired(replicas)
    await replicas[0].sql(
        """
        INSERT INTO refresh_leases (grant_id, scope_set, fence, ends_at)
        SELECT grant_id, scope_set, 7, $1 FROM access_tokens
        ON CONFLICT (grant_id, scope_set) DO UPDATE SET ends_at = $1
        """,
        replicas[0].clock.now() + timedelta(seconds=13),
    )
    before = replicas[0].refreshes_at_google()
    asking = asyncio.create_task(replicas[1].token())
    done, _ = await asyncio.wait({asking}, timeout=1)
    assert not done
    assert replicas[0].refreshes_at_google() == before
    replicas[0].clock.advance(timedelta(seconds=14))
    assert (await asking).status_code == 200
    assert replicas[0].refreshes_at_google() == before + 1


async def test_a_lease_from_before_a_clock_was_set_back_does_not_last(
    replicas: list[World],
) -> None:
    await _expired(replicas)
    await replicas[0].sql(
        """
        INSERT INTO refresh_leases (grant_id, scope_set, fence, ends_at)
        SELECT grant_id, scope_set, 7, $1 FROM access_tokens
        ON CONFLICT (grant_id, scope_set) DO UPDATE SET ends_at = $1
        """,
        replicas[0].clock.now() + timedelta(minutes=5),
    )
    assert (await replicas[1].token()).status_code == 200


async def test_check_34_a_late_writer_whose_lease_was_taken_over_writes_nothing(
    replicas: list[World],
) -> None:
    await _expired(replicas)
    replicas[0].standin.faults.next("token", Fault.hold("late"))
    late = asyncio.create_task(replicas[0].token())
    await asyncio.to_thread(replicas[0].standin.holds.wait_until_held, "late")
    replicas[0].clock.advance(timedelta(seconds=20))
    fresh = (await replicas[1].token()).json()["access_token"]
    replicas[0].standin.holds.release("late")
    assert (await late).json()["access_token"] == fresh
    assert (await replicas[2].token()).json()["access_token"] == fresh


async def test_a_token_in_use_is_refreshed_before_it_expires(replicas: list[World]) -> None:
    world = replicas[0]
    await world.connect()
    for _ in range(3):
        first = (await world.token()).json()["access_token"]
    world.clock.advance(timedelta(minutes=50))

    async def is_replaced() -> bool:
        rows = await world.sql("SELECT expires_at FROM access_tokens WHERE scope_set <> ''")
        return any(row["expires_at"] > world.clock.now() + timedelta(minutes=30) for row in rows)

    await eventually(is_replaced)
    second = await world.token()
    assert second.json()["access_token"] != first
    assert second.json()["expires_in"] > 1800


async def test_an_idle_token_is_left_to_expire(replicas: list[World]) -> None:
    world = replicas[0]
    await world.connect()
    await world.token()
    before = world.refreshes_at_google()
    world.clock.advance(timedelta(minutes=50))
    await world.connect("user-2", "grace@example.com")
    for _ in range(2):
        await world.token("user-2")
    world.clock.advance(timedelta(minutes=50))

    async def other_is_replaced() -> bool:
        return world.refreshes_at_google() >= before + 2

    await eventually(other_is_replaced)
    assert world.refreshes_at_google() == before + 2


async def test_a_rotated_refresh_token_voids_no_access_token_of_other_replicas(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Otherwise replicas that share no access tokens would void each other's forever."""
    url, changes = world.settings.database_url.reveal(), {"BROKER_ACCESS_TOKENS": "memory"}
    world.standin.faults.always("token", Fault.rotate_refresh_token())
    async with (
        open_world(
            tmp_path_factory.mktemp("one"), url, world.standin, world.clock, changes=changes
        ) as one,
        open_world(
            tmp_path_factory.mktemp("two"), url, world.standin, world.clock, changes=changes
        ) as two,
    ):
        await one.connect()
        narrowed = (await one.token(scope=CALENDAR_READONLY)).json()["access_token"]
        others = (await two.token(scope=CALENDAR_READONLY)).json()["access_token"]
        assert others != narrowed
        # A change of the grant itself would be known by now: its version is older.
        (version,) = await world.sql("SELECT version, refresh_token_version FROM grants")
        assert (version["version"], version["refresh_token_version"]) == (1, 3)
        assert (await one.token(scope=CALENDAR_READONLY)).json()["access_token"] == narrowed
        assert one.refreshes_at_google() == 2


@pytest.mark.parametrize(
    "storing", [(GrantStore, "connect"), (PendingConsents, "confirm")], ids=["consent", "confirm"]
)
async def test_a_first_token_is_not_cached_if_its_revocation_is_known_already(
    invalidated: set[TokenCache],
    replicas: list[World],
    monkeypatch: pytest.MonkeyPatch,
    storing: tuple[type, str],
) -> None:
    store = getattr(*storing)

    async def is_known_to_all() -> bool:
        return len(invalidated) == len(replicas)

    async def store_and_be_overtaken(*args: object, **options: object) -> object:
        stored = await store(*args, **options)
        assert (await replicas[1].revoke()).status_code == 204
        await eventually(is_known_to_all)
        return stored

    link = None
    if storing[0] is PendingConsents:
        link = await replicas[0].connect_pending()
    monkeypatch.setattr(*storing, store_and_be_overtaken)
    if link is None:
        await replicas[0].connect()
    else:
        assert (await replicas[0].confirm(link)).status_code == 200
    assert [len(cache) for cache in invalidated] == [0, 0, 0]
    assert (await replicas[0].token()).status_code == 404
