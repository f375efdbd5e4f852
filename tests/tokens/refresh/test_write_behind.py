"""An unwritten refresh is written to its own grant, or not at all."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.grants.model import AccessToken, Consent, Grant
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.tokens.refresh.write_behind import WriteBehind
from tests.support.clock import ManualClock

SCOPES = ("openid", "calendar")
ROTATED = Secret("1//rotated")


class Contended(GrantStore):
    """Has some grants locked for too long, or PostgreSQL unavailable."""

    busy: frozenset[UUID] = frozenset()
    is_unavailable = False

    async def save_refresh(self, grant: Grant, **what: Any) -> Grant | None:
        if self.is_unavailable:
            raise StorageUnavailable("away")
        if grant.id in self.busy:
            raise StorageBusy("lock not available")
        return await super().save_refresh(grant, **what)


@pytest.fixture
async def store(database_url: str, clock: ManualClock) -> AsyncIterator[Contended]:
    database = Database(Secret(database_url))
    await database.open()
    sealer = Sealer(local_sealing_keys([Secret("k" * 40)]))
    yield Contended(database, sealer, clock, keep_access_tokens=True)
    await database.close()


@pytest.fixture
def write_behind(store: Contended) -> WriteBehind:
    return WriteBehind(store)


def token(clock: ManualClock, minutes: int = 60) -> AccessToken:
    expires_at = clock.now() + timedelta(minutes=minutes)
    return AccessToken(Secret("ya29.access"), SCOPES, clock.now(), expires_at)


async def connected(store: GrantStore, clock: ManualClock, user_id: str = "user-1") -> Grant:
    return await store.connect(
        Consent(
            user_id=user_id,
            google_sub=f"sub of {user_id}",
            email="ada@example.com",
            client_id="client",
            scopes=SCOPES,
            refresh_token=Secret("1//refresh"),
            access_token=token(clock),
        )
    )


async def refresh_token(store: GrantStore, user_id: str = "user-1") -> str:
    (stored,) = await store.find(user_id)
    return store.open_refresh_token(stored).reveal()


async def test_a_rotated_refresh_token_is_not_offered_to_a_later_grant(
    store: Contended, write_behind: WriteBehind, clock: ManualClock
) -> None:
    before = await connected(store, clock)
    write_behind.add(before, "calendar", token(clock), ROTATED)
    assert write_behind.refresh_token(before) == ROTATED
    assert write_behind.refresh_token(await connected(store, clock)) is None


async def test_a_superseded_rotated_refresh_token_is_dropped_while_others_wait(
    store: Contended, write_behind: WriteBehind, clock: ManualClock
) -> None:
    before, other = await connected(store, clock), await connected(store, clock, "user-2")
    write_behind.add(before, "calendar", token(clock), ROTATED)
    write_behind.add(other, "calendar", token(clock), None)
    await connected(store, clock)
    store.busy = frozenset({other.id})
    with pytest.raises(StorageBusy):
        await write_behind.flush()
    assert write_behind.refresh_token(before) is None
    assert await refresh_token(store) == "1//refresh"


async def test_a_rotated_refresh_token_without_an_unwritten_refresh_is_revoked(
    store: Contended, write_behind: WriteBehind, clock: ManualClock, database_url: str
) -> None:
    """A refresh of a later grant has replaced its refresh."""
    before = await connected(store, clock)
    write_behind.add(before, "calendar", token(clock), ROTATED)
    write_behind.add(await connected(store, clock), "calendar", token(clock), None)
    await store.revoke("user-1", None, origin="test")
    await write_behind.flush()
    assert write_behind.refresh_token(before) is None
    connection = await asyncpg.connect(database_url)
    try:
        revocations = await connection.fetch(
            "SELECT origin FROM pending_revocations ORDER BY origin"
        )
    finally:
        await connection.close()
    assert [row["origin"] for row in revocations] == ["superseded", "test"]


async def test_a_locked_grant_holds_up_no_other(
    store: Contended, write_behind: WriteBehind, clock: ManualClock
) -> None:
    first, second = await connected(store, clock), await connected(store, clock, "user-2")
    for grant in (first, second):
        write_behind.add(grant, "calendar", token(clock, 90), ROTATED)
    store.busy = frozenset({first.id})
    with pytest.raises(StorageBusy):
        await write_behind.flush()
    assert await refresh_token(store, "user-2") == "1//rotated"
    assert len(write_behind) == 1
    store.busy = frozenset()
    await write_behind.flush()
    assert await refresh_token(store) == "1//rotated"
    assert len(write_behind) == 0


async def test_an_outage_ends_a_flush_and_loses_nothing(
    store: Contended, write_behind: WriteBehind, clock: ManualClock
) -> None:
    for number in (1, 2):
        grant = await connected(store, clock, f"user-{number}")
        write_behind.add(grant, "calendar", token(clock, 90), ROTATED)
    store.is_unavailable = True
    with pytest.raises(StorageUnavailable):
        await write_behind.flush()
    store.is_unavailable = False
    assert len(write_behind) == 2
    await write_behind.flush()
    assert {await refresh_token(store, f"user-{number}") for number in (1, 2)} == {"1//rotated"}
