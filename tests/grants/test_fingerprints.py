"""Refresh tokens are found by what security events name, and no part of them is stored in the
clear.
"""

import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.fingerprints import FingerprintBackfill, TokenFingerprints, double_digest
from broker.grants.model import AccessToken, Consent
from broker.grants.store import GrantStore
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
    database: Database, clock: ManualClock, *keys: Secret, fingerprints: bool = True
) -> GrantStore:
    return GrantStore(
        database,
        Sealer(local_sealing_keys(keys)),
        clock,
        keep_access_tokens=True,
        fingerprints=TokenFingerprints(keys) if fingerprints else None,
    )


def backfill(database: Database, *keys: Secret) -> FingerprintBackfill:
    return FingerprintBackfill(database, Sealer(local_sealing_keys(keys)), TokenFingerprints(keys))


async def key_ids(database: Database) -> list[str]:
    return [row[0] for row in await database.fetch("SELECT key_id FROM refresh_token_lookups")]


def consent_with(token: Secret | None) -> Consent:
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


def test_the_digest_is_the_one_of_googles_documentation() -> None:
    once = hashlib.sha512(b"token").digest()
    assert double_digest("token") == hashlib.sha512(once).digest()


def test_fingerprints_are_found_with_every_key_and_differ_by_kind() -> None:
    made = TokenFingerprints([OLD]).compute(TOKEN)
    computed = TokenFingerprints([NEW, OLD])
    assert made.prefix in computed.compute_for_prefix(TOKEN.reveal()[:16])
    assert made.digest in computed.compute_for_digest(double_digest(TOKEN.reveal()))
    assert made.prefix not in TokenFingerprints([NEW]).compute_for_prefix(TOKEN.reveal()[:16])
    assert (
        len({made.prefix, made.digest, *TokenFingerprints([NEW]).compute_for_prefix("x" * 16)}) == 3
    )


_DIGEST = double_digest(TOKEN.reveal())


@pytest.mark.parametrize(
    "hidden",
    [TOKEN.reveal()[:16], _DIGEST.hex(), base64.b64encode(_DIGEST).decode()],
    ids=["prefix", "digest in hex", "digest in base64"],
)
async def test_fingerprints_reveal_no_part_of_the_token(
    database: Database, clock: ManualClock, hidden: str
) -> None:
    await store(database, clock, OLD).connect(consent_with(TOKEN))
    (row,) = await database.fetch("SELECT * FROM refresh_token_lookups")
    assert hidden not in " ".join(str(value) for value in row.values())
    assert hidden.encode() not in bytes(row["prefix"]) + bytes(row["digest"])


async def test_a_kept_token_keeps_its_fingerprints_and_a_revoked_one_loses_them(
    database: Database, clock: ManualClock
) -> None:
    grants = store(database, clock, OLD)
    grant = await grants.connect(consent_with(TOKEN))
    before = await database.fetch("SELECT * FROM refresh_token_lookups")
    await grants.connect(consent_with(None))
    assert await database.fetch("SELECT * FROM refresh_token_lookups") == before
    await grants.revoke(grant.user_id, None, origin="test")
    assert await database.fetch("SELECT * FROM refresh_token_lookups") == []


async def test_missing_fingerprints_are_computed(database: Database, clock: ManualClock) -> None:
    """An older release stores no fingerprints."""
    await store(database, clock, OLD, fingerprints=False).connect(consent_with(TOKEN))
    assert await key_ids(database) == [""]
    await backfill(database, OLD).run_once()
    (row,) = await database.fetch("SELECT * FROM refresh_token_lookups")
    made = TokenFingerprints([OLD]).compute(TOKEN)
    assert (row["key_id"], row["prefix"], row["digest"]) == (
        made.key_id, made.prefix, made.digest,
    )  # fmt: skip


async def test_an_older_release_that_replaces_a_token_leaves_no_wrong_fingerprints(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, OLD).connect(consent_with(TOKEN))
    await store(database, clock, OLD, fingerprints=False).connect(
        consent_with(Secret("1//0another"))
    )
    assert await key_ids(database) == [""]


async def test_after_a_key_rotation_fingerprints_are_computed_with_the_new_key(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, OLD).connect(consent_with(TOKEN))
    await backfill(database, NEW, OLD).run_once()
    assert await key_ids(database) == [TokenFingerprints([NEW]).key_id]


async def test_a_token_that_does_not_open_is_skipped(
    database: Database, clock: ManualClock
) -> None:
    await store(database, clock, NEW, fingerprints=False).connect(consent_with(TOKEN))
    await store(database, clock, OLD, fingerprints=False).connect(
        replace(consent_with(TOKEN), user_id="another")
    )
    await backfill(database, OLD).run_once()
    assert sorted(await key_ids(database)) == ["", TokenFingerprints([OLD]).key_id]


async def test_one_run_processes_several_portions(database: Database, clock: ManualClock) -> None:
    grants = store(database, clock, OLD, fingerprints=False)
    for number in range(250):
        await grants.connect(replace(consent_with(TOKEN), user_id=f"user-{number}"))
    await backfill(database, OLD).run_once()
    assert set(await key_ids(database)) == {TokenFingerprints([OLD]).key_id}
