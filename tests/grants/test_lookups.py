"""Refresh tokens are found by what events say of them, and nothing of them is kept in the clear."""

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.lookups import LookupFill, TokenLookups, double_digest
from broker.grants.model import AccessToken
from broker.grants.store import Consent, GrantStore
from broker.secret import Secret
from tests.support.clock import ManualClock

OLD, NEW = Secret("an-old-key-of-more-than-32-bytes-0123456789"), Secret("n" * 40)
TOKEN = Secret("1//0abcdefghijklmnopqrstuvwxyz")


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(Secret(database_url))
    await opened.open()
    yield opened
    await opened.close()


def store(
    database: Database, clock: ManualClock, *keys: Secret, lookups: bool = True
) -> GrantStore:
    return GrantStore(
        database,
        Sealer(local_sealing_keys(keys)),
        clock,
        keep_access_tokens=True,
        lookups=TokenLookups(keys) if lookups else None,
    )


def fill(database: Database, *keys: Secret) -> LookupFill:
    return LookupFill(database, Sealer(local_sealing_keys(keys)), TokenLookups(keys))


async def key_ids(database: Database) -> list[str]:
    return [row[0] for row in await database.fetch("SELECT key_id FROM refresh_token_lookups")]


def with_token(token: Secret | None) -> Consent:
    now = ManualClock().now()
    return Consent(
        user_id="user-1",
        google_sub="sub-1",
        email="ada@example.com",
        client_id="client",
        scopes=("openid",),
        refresh_token=token,
        access_token=AccessToken(Secret("ya29.access"), ("openid",), now, now),
    )


def test_the_digest_is_the_one_that_google_describes() -> None:
    once = hashlib.sha512(b"token").digest()
    assert double_digest("token") == hashlib.sha512(once).digest()


def test_values_are_found_under_every_key_and_differ_by_kind() -> None:
    made = TokenLookups([OLD]).of(TOKEN)
    looked = TokenLookups([NEW, OLD])
    assert made.prefix in looked.of_prefix(TOKEN.reveal()[:16])
    assert made.digest in looked.of_digest(double_digest(TOKEN.reveal()))
    assert made.prefix not in TokenLookups([NEW]).of_prefix(TOKEN.reveal()[:16])
    assert len({made.prefix, made.digest, *TokenLookups([NEW]).of_prefix("x" * 16)}) == 3


async def test_a_stored_token_leaves_no_part_of_itself(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, OLD).connect(with_token(TOKEN))
    (row,) = await database.fetch("SELECT * FROM refresh_token_lookups")
    text = " ".join(str(value) for value in row.values())
    digest = double_digest(TOKEN.reveal())
    for hidden in (TOKEN.reveal()[:16], digest.hex(), base64.b64encode(digest).decode()):
        assert hidden not in text
        assert hidden.encode() not in bytes(row["prefix"]) + bytes(row["digest"])


async def test_a_token_that_is_kept_keeps_its_values_and_an_ended_one_loses_them(
    database: Database, clock: ManualClock
) -> None:
    grants = store(database, clock, OLD)
    grant = await grants.connect(with_token(TOKEN))
    before = await database.fetch("SELECT * FROM refresh_token_lookups")
    await grants.connect(with_token(None))
    assert await database.fetch("SELECT * FROM refresh_token_lookups") == before
    await grants.revoke(grant.user_id, None, origin="test")
    assert await database.fetch("SELECT * FROM refresh_token_lookups") == []


async def test_missing_values_are_filled_in(database: Database, clock: ManualClock) -> None:
    """As an older release leaves them, which knows nothing of lookups."""
    await store(database, clock, OLD, lookups=False).connect(with_token(TOKEN))
    assert await key_ids(database) == [""]
    await fill(database, OLD).round()
    (row,) = await database.fetch("SELECT * FROM refresh_token_lookups")
    made = TokenLookups([OLD]).of(TOKEN)
    assert (row["key_id"], row["prefix"], row["digest"]) == (
        made.key_id, made.prefix, made.digest,
    )  # fmt: skip


async def test_an_older_release_that_replaces_a_token_leaves_no_wrong_values(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, OLD).connect(with_token(TOKEN))
    await store(database, clock, OLD, lookups=False).connect(with_token(Secret("1//0another")))
    assert await key_ids(database) == [""]


async def test_after_a_rotation_values_are_made_with_the_new_key(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, OLD).connect(with_token(TOKEN))
    await fill(database, NEW, OLD).round()
    assert await key_ids(database) == [TokenLookups([NEW]).key_id]


async def test_a_token_that_does_not_open_stops_no_other(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, NEW, lookups=False).connect(with_token(TOKEN))
    await store(database, clock, OLD, lookups=False).connect(
        replace(with_token(TOKEN), user_id="another")
    )
    await fill(database, OLD).round()
    assert sorted(await key_ids(database)) == ["", TokenLookups([OLD]).key_id]


async def test_more_than_a_portion_is_filled_in_one_round(
    database: Database, clock: ManualClock
) -> None:
    grants = store(database, clock, OLD, lookups=False)
    for number in range(250):
        await grants.connect(replace(with_token(TOKEN), user_id=f"user-{number}"))
    await fill(database, OLD).round()
    assert set(await key_ids(database)) == {TokenLookups([OLD]).key_id}
