"""The store of grants: late and concurrent writers, and the binding of ciphertexts to rows."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from broker.crypto.sealing import Sealer, UnsealingError, local_sealing_keys
from broker.database.database import Database, StorageUnavailable
from broker.grants.model import (
    AccessToken,
    Consent,
    Grant,
    GrantStatus,
    NoRefreshTokenError,
    to_scope_set,
)
from broker.grants.recent_changes import RecentChanges
from broker.grants.store import GrantStore
from broker.secret import Secret
from tests.support.clock import ManualClock

SCOPES = ("openid", "calendar")
KEY = Secret("a-key-" + "k" * 32)


def token(clock: ManualClock, value: str = "ya29.first", minutes: int = 60) -> AccessToken:
    return AccessToken(Secret(value), SCOPES, clock.now(), clock.now() + timedelta(minutes=minutes))


def consent(clock: ManualClock, **changes: Any) -> Consent:
    consented = Consent(
        user_id="user-1",
        google_sub="sub-1",
        email="ada@example.com",
        client_id="client",
        scopes=SCOPES,
        refresh_token=Secret("1//refresh"),
        access_token=token(clock),
    )
    return replace(consented, **changes)


async def test_the_answer_of_a_replica_that_lacks_a_change_is_rejected(
    database: Database, store: GrantStore, database_url: str, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    primary = Database(Secret(database_url))
    await primary.close()
    sealer = Sealer(local_sealing_keys([KEY]))
    recent_changes = RecentChanges(clock)
    reading = GrantStore(
        primary,
        sealer,
        clock,
        keep_access_tokens=True,
        read_replica=database,
        recent_changes=recent_changes,
    )
    assert [stored.grant for stored in await reading.find("user-1")] == [grant]
    recent_changes.record_version("user-1", grant.id, 2)
    with pytest.raises(StorageUnavailable):
        await reading.find("user-1")
    with pytest.raises(StorageUnavailable):
        await reading.find_many(["user-1"])


async def save(store: GrantStore, grant: Grant, access_token: AccessToken, **extra: Any) -> Any:
    return await store.save_refresh(
        grant,
        scope_set=to_scope_set(SCOPES),
        access_token=access_token,
        refresh_token=extra.get("refresh_token"),
    )


async def stored_token(store: GrantStore, user_id: str = "user-1") -> str:
    (stored,) = await store.find(user_id)
    sealed = stored.sealed_access_tokens[to_scope_set(SCOPES)]
    return store.open_access_token(stored.grant, to_scope_set(SCOPES), sealed).value.reveal()


async def test_a_consent_is_stored_with_its_tokens(store: GrantStore, clock: ManualClock) -> None:
    await store.connect(consent(clock))
    (stored,) = await store.find("user-1")
    assert stored.grant.status is GrantStatus.ACTIVE
    assert store.open_refresh_token(stored).reveal() == "1//refresh"
    assert await stored_token(store) == "ya29.first"


async def test_a_changed_email_keeps_the_grant(store: GrantStore, clock: ManualClock) -> None:
    before = await store.connect(consent(clock))
    after = await store.connect(consent(clock, email="ada@new.example.com"))
    assert (after.id, after.email) == (before.id, "ada@new.example.com")
    other = await store.connect(consent(clock, google_sub="sub-2"))
    assert other.id != before.id


async def test_without_a_refresh_token_the_stored_one_is_kept(
    store: GrantStore, clock: ManualClock
) -> None:
    await store.connect(consent(clock))
    await store.connect(consent(clock, refresh_token=None, access_token=token(clock, "ya29.2")))
    (stored,) = await store.find("user-1")
    assert store.open_refresh_token(stored).reveal() == "1//refresh"


async def test_without_any_refresh_token_nothing_is_stored(
    store: GrantStore, clock: ManualClock
) -> None:
    with pytest.raises(NoRefreshTokenError):
        await store.connect(consent(clock, refresh_token=None))
    assert await store.list("user-1") == []


@pytest.mark.parametrize("state", ["revoked", "dead", "other client"])
async def test_a_refresh_token_that_no_longer_works_is_not_kept(
    store: GrantStore, clock: ManualClock, state: str
) -> None:
    grant = await store.connect(consent(clock))
    if state == "revoked":
        await store.revoke("user-1", None, origin="test")
    if state == "dead":
        await store.mark_reauthorization_required(grant, "invalid_grant")
    client_id = "another" if state == "other client" else "client"
    with pytest.raises(NoRefreshTokenError):
        await store.connect(consent(clock, refresh_token=None, client_id=client_id))


async def test_a_refresh_of_an_older_version_writes_nothing(
    store: GrantStore, clock: ManualClock
) -> None:
    old = await store.connect(consent(clock))
    await store.connect(consent(clock, access_token=token(clock, "ya29.new")))
    late = token(clock, "ya29.late", minutes=120)
    assert await save(store, old, late) is None
    assert await stored_token(store) == "ya29.new"


async def test_a_late_writer_does_not_replace_a_longer_lived_token(
    store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    await save(store, grant, token(clock, "ya29.fresh", minutes=90))
    await save(store, grant, token(clock, "ya29.late", minutes=80))
    assert await stored_token(store) == "ya29.fresh"


async def test_a_late_invalid_grant_does_not_mark_a_reconnected_grant(
    store: GrantStore, clock: ManualClock
) -> None:
    old = await store.connect(consent(clock))
    await store.connect(consent(clock))
    assert await store.mark_reauthorization_required(old, "invalid_grant") is False
    (stored,) = await store.find("user-1")
    assert stored.grant.status is GrantStatus.ACTIVE


async def test_one_of_several_concurrent_marks_succeeds(
    store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    marks = await asyncio.gather(
        *(store.mark_reauthorization_required(grant, "invalid_grant") for _ in range(5))
    )
    assert sorted(marks) == [False, False, False, False, True]


async def test_a_rotated_refresh_token_is_stored_with_its_access_token(
    store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    fresh = token(clock, "ya29.fresh", minutes=90)
    await save(store, grant, fresh, refresh_token=Secret("1//rotated"))
    (stored,) = await store.find("user-1")
    assert store.open_refresh_token(stored).reveal() == "1//rotated"
    assert await stored_token(store) == "ya29.fresh"


async def test_one_of_several_concurrent_rotations_is_stored_completely(
    store: GrantStore, clock: ManualClock
) -> None:
    grant = await store.connect(consent(clock))
    results = await asyncio.gather(
        *(
            save(
                store,
                grant,
                token(clock, f"ya29.{n}", minutes=90 + n),
                refresh_token=Secret(f"1//{n}"),
            )
            for n in range(4)
        )
    )
    assert sum(result is not None for result in results) == 1
    (stored,) = await store.find("user-1")
    winner = store.open_refresh_token(stored).reveal().removeprefix("1//")
    assert await stored_token(store) == f"ya29.{winner}"


async def test_concurrent_connects_leave_exactly_one_default(
    store: GrantStore, clock: ManualClock
) -> None:
    await asyncio.gather(*(store.connect(consent(clock, google_sub=f"sub-{n}")) for n in range(6)))
    assert [grant.is_default for grant in await store.list("user-1")].count(True) == 1


async def _swap_refresh_tokens(connection: asyncpg.Connection) -> None:
    await connection.execute(
        """
        UPDATE grants a SET sealed_refresh_token = b.sealed_refresh_token
        FROM grants b WHERE a.user_id <> b.user_id
        """
    )


async def _take_over_the_row(connection: asyncpg.Connection) -> None:
    await connection.execute("DELETE FROM grants WHERE user_id = 'mallory'")
    await connection.execute("UPDATE grants SET user_id = 'mallory' WHERE user_id = 'user-1'")


async def _rename_the_account(connection: asyncpg.Connection) -> None:
    await connection.execute("UPDATE grants SET google_sub = 'else' WHERE user_id = 'mallory'")


@pytest.mark.parametrize("tamper", [_swap_refresh_tokens, _take_over_the_row, _rename_the_account])
async def test_a_moved_ciphertext_does_not_open(
    store: GrantStore, clock: ManualClock, database_url: str, tamper: Any
) -> None:
    await store.connect(consent(clock))
    await store.connect(consent(clock, user_id="mallory", google_sub="sub-m"))
    connection = await asyncpg.connect(database_url)
    try:
        await tamper(connection)
    finally:
        await connection.close()
    (stored,) = await store.find("mallory")
    with pytest.raises(UnsealingError):
        store.open_refresh_token(stored)


async def test_an_access_token_moved_to_a_wider_scope_set_does_not_open(
    store: GrantStore, clock: ManualClock, database: Database
) -> None:
    await store.connect(consent(clock))
    await database.execute("UPDATE access_tokens SET scope_set = 'drive'")
    (stored,) = await store.find("user-1")
    with pytest.raises(UnsealingError):
        store.open_access_token(stored.grant, "drive", stored.sealed_access_tokens["drive"])


async def test_expired_tokens_are_not_read(store: GrantStore, clock: ManualClock) -> None:
    await store.connect(consent(clock))
    clock.advance(timedelta(hours=1))
    (stored,) = await store.find("user-1")
    assert stored.sealed_access_tokens == {}


async def test_a_revocation_succeeds_even_without_the_key(
    store: GrantStore, clock: ManualClock, database: Database
) -> None:
    await store.connect(consent(clock))
    keyless = GrantStore(
        database,
        Sealer(local_sealing_keys([Secret("another-" + "z" * 32)])),
        clock,
        keep_access_tokens=True,
    )
    await keyless.revoke("user-1", None, origin="test")
    assert await store.find("user-1") == []
