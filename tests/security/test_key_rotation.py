"""Check 20, on whole brokers under load: the key is rotated, and the old one is removed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from bench import sample_grants as filling
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.resealing import Resealer
from broker.secret import Secret
from devstack.google_standin import Fault, GoogleStandin
from tests.security.test_security_events import TOKEN_REVOKED, claims, post, signed, statuses
from tests.support.clock import ManualClock
from tests.support.processes import run_broker
from tests.support.waiting import eventually
from tests.support.world import World, environment, open_world

OLD, NEW = "old-key-" + "o" * 40, "new-key-" + "n" * 40
USERS = [f"user-{number}" for number in range(12)]


@pytest.fixture
def clock() -> ManualClock:
    """A clock at the present: here the database's clock decides which tokens are valid."""
    return ManualClock(datetime.now(UTC))


class Fleet:
    """Replicas that start and stop on one database, and callers that request continuously."""

    def __init__(
        self, folder: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.standin = standin
        self.clock = clock
        self.serving: list[World] = []
        self.asked = 0
        self.failed: list[str] = []

    @asynccontextmanager
    async def replica(self, secret_key: str) -> AsyncIterator[World]:
        """Start a replica, which gets load until it is stopped."""
        folder = self.folder / str(len(list(self.folder.iterdir())))
        folder.mkdir()
        changes = {"SECRET_KEY": secret_key}
        async with open_world(
            folder, self.database_url, self.standin, self.clock, changes=changes
        ) as world:
            self.serving.append(world)
            try:
                yield world
            finally:
                self.serving.remove(world)

    async def replace(self, old: AsyncExitStack, secret_key: str) -> AsyncExitStack:
        """Replace a replica as a rolling restart does: both serve in between."""
        new = AsyncExitStack()
        await new.enter_async_context(self.replica(secret_key))
        await self.wait_for_some_requests()
        leaving = self.serving.pop(0)
        await self.wait_for_some_requests()
        self.serving.append(leaving)
        await old.aclose()
        return new

    async def request_continuously(self, start: int) -> None:
        """Request cached and refreshed tokens alternately, of every user, at every replica."""
        number = start
        while True:
            world = self.serving[number % len(self.serving)]
            min_ttl = 86_400 if number % 5 == 0 else 60
            answer = await world.token(USERS[number % len(USERS)], min_ttl=min_ttl)
            self.asked += 1
            if answer.status_code != 200:
                self.failed.append(answer.text)
            number += 1
            await asyncio.sleep(0)

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        asking = [
            asyncio.create_task(self.request_continuously(start)) for start in range(0, 40, 13)
        ]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            ended = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    async def wait_for_some_requests(self, count: int = 60) -> None:
        """Wait until the load has sent `count` more requests."""
        enough = self.asked + count

        async def is_enough() -> bool:
            return self.asked >= enough

        await eventually(is_enough, seconds=30)


@pytest.fixture
def fleet(tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock) -> Fleet:
    folder = tmp_path / "replicas"
    folder.mkdir()
    return Fleet(folder, database_url, standin, clock)


async def keys(fleet: Fleet, command: str, secret_key: str) -> tuple[int, str]:
    """Run `broker keys`; return its exit code and output."""
    settings = environment(fleet.database_url, fleet.standin, Path("unused"))
    run = await asyncio.to_thread(
        run_broker, "keys", command, settings=settings | {"SECRET_KEY": secret_key}
    )
    return run.returncode, run.stdout + run.stderr


async def test_check_20_a_rotation_under_load_fails_no_read_and_the_old_key_can_go(
    fleet: Fleet,
) -> None:
    """As docs/how-to/rotate-secrets.md: add the new key, put it first, remove the old one."""
    replica = AsyncExitStack()
    world = await replica.enter_async_context(fleet.replica(OLD))
    for user_id in USERS:
        await world.connect(user_id)
    async with fleet.under_load():
        replica = await fleet.replace(replica, f"{OLD},{NEW}")
        replica = await fleet.replace(replica, f"{NEW},{OLD}")
        assert (await keys(fleet, "status", f"{NEW},{OLD}"))[0] == 1
        status, said = await keys(fleet, "reseal", f"{NEW},{OLD}")
        assert (status, "the other keys can be removed" in said) == (0, True), said
        status, said = await keys(fleet, "status", NEW)
        assert (status, "there is no other" in said) == (0, True), said
        replica = await fleet.replace(replica, NEW)
        await fleet.wait_for_some_requests()
    assert fleet.failed == []
    await replica.aclose()


async def test_check_20_a_queued_revocation_survives_a_key_rotation(fleet: Fleet) -> None:
    async with fleet.replica(OLD) as world:
        await world.connect("leaver")
        world.standin.faults.always("revoke", Fault.http(503))
        assert (await world.revoke("leaver")).status_code == 204
        await asyncio.to_thread(world.standin.requests.wait_for, "revoke")
    assert (await keys(fleet, "reseal", f"{NEW},{OLD}"))[0] == 0
    async with fleet.replica(NEW) as world:
        sent = world.standin.requests.count("revoke")
        world.standin.faults.clear("revoke")
        world.clock.advance(timedelta(minutes=5))
        await asyncio.to_thread(world.standin.requests.wait_for, "revoke", count=sent + 1)
        assert not world.standin.state.refresh_tokens


async def test_check_20_resealed_tokens_need_no_refresh_when_the_old_key_goes(fleet: Fleet) -> None:
    async with fleet.replica(OLD) as world:
        await world.connect("user-1")
        assert (await world.token("user-1")).status_code == 200
    assert (await keys(fleet, "reseal", f"{NEW},{OLD}"))[0] == 0
    async with fleet.replica(NEW) as world:
        fleet.standin.faults.always("token", Fault.http(503))
        assert (await world.token("user-1")).status_code == 200


async def test_check_20_a_resealed_token_is_still_bound_to_its_row(fleet: Fleet) -> None:
    async with fleet.replica(OLD) as world:
        await world.connect("user-1")
        await world.connect("user-2", "grace@example.com")
    assert (await keys(fleet, "reseal", f"{NEW},{OLD}"))[0] == 0
    async with fleet.replica(NEW) as world:
        await world.sql("DELETE FROM access_tokens")
        await world.sql(
            "UPDATE grants SET sealed_refresh_token = (SELECT sealed_refresh_token FROM grants"
            " WHERE user_id = 'user-1') WHERE user_id = 'user-2'"
        )
        assert (await world.token("user-2")).json()["code"] == "storage_unavailable"
        assert (await world.token("user-1")).status_code == 200


async def test_check_20_security_events_still_find_a_resealed_token(fleet: Fleet) -> None:
    async with fleet.replica(OLD) as world:
        await world.connect("user-1")
    assert (await keys(fleet, "reseal", f"{NEW},{OLD}"))[0] == 0
    async with fleet.replica(NEW) as world:
        subject = {
            "subject_type": "oauth_token",
            "token_type": "refresh_token",
            "token_identifier_alg": "prefix",
            "token": world.standin.issued.refresh_tokens[-1][:16],
        }
        event = claims(world, events={TOKEN_REVOKED: {"subject": subject}})
        assert (await post(world, signed(world, event))).status_code == 202
        assert await statuses(world) == ["reauthorization_required"]


async def test_check_20_a_token_that_does_not_open_is_left_and_reported(fleet: Fleet) -> None:
    async with fleet.replica(OLD) as world:
        await world.connect("user-1")
        before = await world.sql("SELECT sealed_refresh_token FROM grants")
        status, said = await keys(fleet, "reseal", NEW)
        assert status == 1
        assert "does not open with any key of SECRET_KEY" in said
        assert "a key that is not in SECRET_KEY: 1 refresh tokens" in said
        assert await world.sql("SELECT sealed_refresh_token FROM grants") == before
        assert OLD not in said
        assert NEW not in said


async def test_check_20_a_locked_row_is_skipped_and_retried(
    world: World, database_url: str
) -> None:
    for number in range(3):
        await world.connect(f"user-{number}")
    keys = local_sealing_keys([Secret(NEW), *world.settings.secret_keys])
    database = Database(Secret(database_url), max_connections=1)
    await database.open()
    resealer = Resealer(
        database, Sealer(keys), TokenFingerprints([Secret(NEW), *world.settings.secret_keys])
    )
    locking = "UPDATE grants SET updated_at = updated_at WHERE user_id = 'user-1'"
    async with _other_session(database_url, locking):
        # Waiting for the row would end with the statement timeout of five seconds.
        await resealer.run()
        assert await _old_tokens(world, keys[0].id) == ["user-1"]
    await resealer.run()
    assert await _old_tokens(world, keys[0].id) == []
    assert resealer.progress.unopened == 0
    assert len(await world.sql("SELECT FROM refresh_token_lookups WHERE key_id <> ''")) == 3
    await database.close()


@asynccontextmanager
async def _resealer(world: World, database_url: str) -> AsyncIterator[Resealer]:
    both = [Secret(NEW), *world.settings.secret_keys]
    database = Database(Secret(database_url), max_connections=1)
    await database.open()
    yield Resealer(database, Sealer(local_sealing_keys(both)), TokenFingerprints(both))
    await database.close()


@asynccontextmanager
async def _other_session(database_url: str, statement: str) -> AsyncIterator[Transaction]:
    """What another connection did, and has not committed: to be rolled back, by the test if it is
    to be over sooner.
    """
    session: asyncpg.Connection = await asyncpg.connect(database_url)
    held = session.transaction()
    await held.start()
    await session.execute(statement)
    try:
        yield held
    finally:
        await session.close()


async def _keys_in_use(resealer: Resealer) -> set[str]:
    return {key for _, key in await resealer.count_by_key()}


async def test_check_20_a_row_that_is_locked_briefly_is_resealed(
    world: World, database_url: str
) -> None:
    await world.connect("user-1")
    async with (
        _resealer(world, database_url) as resealer,
        _other_session(database_url, "UPDATE grants SET updated_at = updated_at") as held,
    ):
        running = asyncio.create_task(resealer.run())
        await asyncio.sleep(0.4)
        assert not running.done()
        await held.rollback()
        await running
        assert await _keys_in_use(resealer) == {local_sealing_keys([Secret(NEW)])[0].id}


async def test_check_20_an_interrupted_portion_is_retried(world: World, database_url: str) -> None:
    await world.connect("user-1")
    lock = "LOCK TABLE refresh_token_lookups IN EXCLUSIVE MODE"
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE '%FROM free WHERE g.id = free.id%'"
    )

    async def is_ended() -> bool:
        return bool(await world.sql(end))

    async with (
        _resealer(world, database_url) as resealer,
        _other_session(database_url, lock) as held,
    ):
        running = asyncio.create_task(resealer.run())
        await eventually(is_ended, seconds=5)
        await held.rollback()
        await running
        assert await _keys_in_use(resealer) == {local_sealing_keys([Secret(NEW)])[0].id}


async def _old_tokens(world: World, key_id: str) -> list[str]:
    rows = await world.sql("SELECT user_id FROM grants WHERE refresh_token_key_id <> $1", key_id)
    return [row["user_id"] for row in rows]


async def test_check_20_resealing_can_be_interrupted_and_resumes(
    world: World, database_url: str
) -> None:
    users = [f"user-{number}" for number in range(250)]
    old, both = world.settings.secret_keys, [Secret(NEW), *world.settings.secret_keys]
    await filling.fill(database_url, Sealer(local_sealing_keys(old)), users)
    keys = local_sealing_keys(both)
    database = Database(Secret(database_url), max_connections=1)
    await database.open()
    first = Resealer(database, Sealer(keys), TokenFingerprints(both))
    running = asyncio.create_task(first.run())

    async def has_begun() -> bool:
        return first.progress.resealed > 0

    await eventually(has_begun)
    running.cancel()
    await asyncio.wait([running])
    second = Resealer(database, Sealer(keys), TokenFingerprints(both))
    await second.run()
    assert 0 < first.progress.resealed < 2 * len(users)
    assert await _old_tokens(world, keys[0].id) == []
    assert {key for _, key in await second.count_by_key()} == {keys[0].id}
    await database.close()
