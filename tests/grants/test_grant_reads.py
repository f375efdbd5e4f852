"""Reads of grants hardly wait for a primary that hangs, if there is a read replica."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database import connector, failure_detector
from broker.database.database import Database
from broker.grants import grant_reads
from broker.grants.recent_changes import RecentChanges
from broker.grants.store import GrantStore
from broker.secret import Secret
from tests.grants.test_store import KEY, consent
from tests.support.clock import ManualClock
from tests.support.lossy_link import LossyLink, lossy_link

LONG_SECONDS = 60.0
"""A time-out that no test waits for."""

SHORT_SECONDS = LONG_SECONDS / 3


@dataclass
class Servers:
    """A store with a primary behind a lossy link, and a read replica."""

    link: LossyLink
    primary: Database
    replica: Database
    store: GrantStore
    recent_changes: RecentChanges

    async def seconds_to_find(self) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert len(await self.store.find("user-1")) == 1
        return loop.time() - began


@pytest.fixture
async def servers(
    database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Servers]:
    for module in (connector, failure_detector):
        monkeypatch.setattr(module, "PROBE_SECONDS", LONG_SECONDS)
    async with lossy_link(database_url) as (link, address):
        primary = Database(
            Secret(address),
            max_connections=3,
            connect_seconds=LONG_SECONDS,
            command_seconds=LONG_SECONDS,
        )
        await primary.open()
        replica = Database(Secret(database_url), opens_when_used=True)
        sealer = Sealer(local_sealing_keys([KEY]))
        recent_changes = RecentChanges(clock)
        store = GrantStore(
            primary,
            sealer,
            clock,
            keep_access_tokens=True,
            read_replica=replica,
            recent_changes=recent_changes,
        )
        await store.connect(consent(clock))
        yield Servers(link, primary, replica, store, recent_changes)
        await primary.close()
        await replica.close()


def _forbid(reading: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each read of this database raise."""

    async def read(*_: object, **__: object) -> None:
        raise AssertionError("the database was read")

    monkeypatch.setattr(reading, "read", read)


async def test_only_the_first_reads_wait_for_a_primary_that_hangs(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.link.cut()
    first = await asyncio.gather(*(servers.seconds_to_find() for _ in range(10)))
    assert max(first) < SHORT_SECONDS
    _forbid(servers.primary, monkeypatch)
    await asyncio.gather(*(servers.seconds_to_find() for _ in range(10)))
    found = await servers.store.find_many(["user-1", "nobody"])
    assert {user_id: len(grants) for user_id, grants in found.items()} == {
        "user-1": 1,
        "nobody": 0,
    }


def test_reads_wait_less_than_a_second_for_the_primary() -> None:
    assert grant_reads._PRIMARY_SECONDS < 1


async def test_the_primary_is_read_again_once_it_responds(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.link.cut()
    await servers.seconds_to_find()
    servers.link.heal()
    async with asyncio.timeout(SHORT_SECONDS):
        while servers.primary.is_suspected:  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.02)
    monkeypatch.setattr(grant_reads, "_PRIMARY_SECONDS", SHORT_SECONDS)
    _forbid(servers.replica, monkeypatch)
    await servers.seconds_to_find()


async def test_reads_wait_for_a_slow_primary_if_the_replica_is_unavailable(
    servers: Servers,
) -> None:
    await servers.replica.close()
    servers.link.cut()
    finding = asyncio.create_task(servers.seconds_to_find())
    await asyncio.sleep(0.7)
    servers.link.heal()
    await finding


async def test_reads_wait_for_a_slow_primary_if_the_replica_is_behind(
    servers: Servers,
) -> None:
    # Its answer lacks a known grant, because no grant has this id.
    servers.recent_changes.record_version("user-1", uuid4(), 1)
    servers.link.cut()
    finding = asyncio.create_task(servers.seconds_to_find())
    await asyncio.sleep(0.7)
    servers.link.heal()
    await finding
