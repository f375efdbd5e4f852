"""Whoever looks for a grant hardly waits for a primary that hangs, if there is a replica."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database import database
from broker.database import failure_detector as silence
from broker.database.database import Database
from broker.grants import fallback_reads
from broker.grants.known_changes import KnownChanges
from broker.grants.store import GrantStore
from broker.secret import Secret
from tests.grants.test_store import KEY, consent
from tests.support.clock import ManualClock
from tests.support.lossy_link import LossyLink, lossy_link

FOR_EVER = 60.0
"""Seconds, for whoever waits until it is known that the primary hangs."""

SOON = FOR_EVER / 3


@dataclass
class Pair:
    """A store whose primary is at the other end of a link; the replica is always there."""

    link: LossyLink
    primary: Database
    replica: Database
    store: GrantStore
    known: KnownChanges

    async def seconds_to_find(self) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert len(await self.store.find("user-1")) == 1
        return loop.time() - began


@pytest.fixture
async def pair(
    database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    for module in (database, silence):
        monkeypatch.setattr(module, "ANSWER_SECONDS", FOR_EVER)
    async with lossy_link(database_url) as (link, address):
        primary = Database(
            Secret(address), max_connections=3, connect_seconds=FOR_EVER, command_seconds=FOR_EVER
        )
        await primary.open()
        replica = Database(Secret(database_url), opens_when_used=True)
        sealer = Sealer(local_sealing_keys([KEY]))
        known = KnownChanges(clock)
        store = GrantStore(
            primary, sealer, clock, keep_access_tokens=True, replica=replica, known=known
        )
        await store.connect(consent(clock))
        yield Pair(link, primary, replica, store, known)
        await primary.close()
        await replica.close()


def _forbid(reading: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no read of it goes unnoticed."""

    async def read(*_: object, **__: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(reading, "read", read)


async def test_the_first_readers_wait_for_a_moment_and_all_others_not_at_all(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.link.stop_carrying()
    first = await asyncio.gather(*(pair.seconds_to_find() for _ in range(10)))
    assert max(first) < SOON
    _forbid(pair.primary, monkeypatch)
    await asyncio.gather(*(pair.seconds_to_find() for _ in range(10)))
    found = await pair.store.find_many(["user-1", "nobody"])
    assert {user_id: len(grants) for user_id, grants in found.items()} == {
        "user-1": 1,
        "nobody": 0,
    }


def test_the_moment_is_shorter_than_a_second() -> None:
    assert fallback_reads._PATIENCE_SECONDS < 1


async def test_the_primary_is_read_again_once_it_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.link.stop_carrying()
    await pair.seconds_to_find()
    pair.link.carry_on()
    async with asyncio.timeout(SOON):
        while pair.primary.is_doubtful:  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.02)
    monkeypatch.setattr(fallback_reads, "_PATIENCE_SECONDS", SOON)
    _forbid(pair.replica, monkeypatch)
    await pair.seconds_to_find()


async def test_a_primary_that_is_only_slow_is_waited_for_if_the_replica_is_away(
    pair: Pair,
) -> None:
    await pair.replica.close()
    pair.link.stop_carrying()
    finding = asyncio.create_task(pair.seconds_to_find())
    await asyncio.sleep(0.7)
    pair.link.carry_on()
    await finding


async def test_a_primary_that_is_only_slow_is_waited_for_if_the_replica_is_behind(
    pair: Pair,
) -> None:
    # It will not show a grant that is known, for there is none with this id.
    pair.known.note_version("user-1", uuid4(), 1)
    pair.link.stop_carrying()
    finding = asyncio.create_task(pair.seconds_to_find())
    await asyncio.sleep(0.7)
    pair.link.carry_on()
    await finding
