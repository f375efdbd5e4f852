"""Each returned token, refusal, link, consent and revocation is audited."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from broker.audit.batch_macs import audit_keys
from broker.audit.verification import TrailVerifier
from broker.callers.keys import new_key
from broker.database.database import Database
from devstack.google_standin import Fault
from devstack.postgres import EmbeddedPostgres
from tests.support.outages import database_unavailable
from tests.support.probes import audited
from tests.support.scopes import CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import ADA, World, stanza

ID = "the-request"
TOKEN = "/v1/users/user-1/token"
LINKS = "/v1/users/user-1/connect-links"
GRANTS = "/v1/users/user-1/grants"

Found = tuple[str, str, str | None, str | None, bool, list[str]]


async def _ask(world: World, method: str, path: str, *, key: str | None = None, **more: Any) -> int:
    headers = {"Authorization": f"Bearer {key or world.key}", "X-Request-Id": ID}
    answer = await world.internal.request(method, path, headers=headers, **more)
    return answer.status_code


async def _records(world: World, *, count: int = 1, action: str | None = None) -> list[Found]:
    """Return the request's records: action, outcome, caller, user, has account, scopes."""
    async with asyncio.timeout(10):
        while True:
            rows = await world.sql(
                "SELECT * FROM audit_events WHERE request_id = $1 "
                "AND ($2::text IS NULL OR action = $2) ORDER BY id",
                ID,
                action,
            )
            if len(rows) >= count:
                break
            await asyncio.sleep(0.05)
    assert all(row["at"] == world.clock.now() for row in rows)
    return [
        (
            row["action"], row["outcome"], row["caller"], row["user_id"],
            row["account_sub"] is not None, row["scopes"] or [],
        )
        for row in rows
    ]  # fmt: skip


async def _verify(world: World) -> None:
    """Verify the trail: each record is in a batch, and unchanged."""
    database = Database(world.settings.database_url, max_connections=1)
    await database.open()
    try:
        verification = TrailVerifier(audit_keys(world.settings.secret_keys))
        async with database.connection() as connection:
            assert [str(fault) async for fault in verification.faults(connection)] == []
        assert verification.progress.records > 0
        assert verification.progress.records_without_batch == 0
    finally:
        await database.close()


async def test_each_returned_token_is_audited_cold_cached_and_in_a_batch(world: World) -> None:
    await world.connect()
    for _ in range(2):
        assert await _ask(world, "GET", TOKEN) == 200
    for _ in range(2):
        items = {"requests": [{"user_id": "user-1"}, {"user_id": "user-1"}]}
        assert await _ask(world, "POST", "/v1/tokens", json=items) == 200
    hand_out = ("token_handed_out", "ok", "calendar-sync", "user-1", True, [CALENDAR_READONLY])
    assert await _records(world, count=6, action="token_handed_out") == [hand_out] * 6
    await _verify(world)


@pytest.mark.parametrize("path", [TOKEN, GRANTS, LINKS, "/v1/tokens"])
async def test_401_is_audited(world: World, path: str) -> None:
    method = "POST" if path in (LINKS, "/v1/tokens") else "GET"
    assert await _ask(world, method, path, key="wrong", json={}) == 401
    assert await _records(world) == [("request_refused", "unauthenticated", None, None, False, [])]


async def test_403_for_another_user_permission_or_scope_is_audited(world: World) -> None:
    key = new_key()
    limited = stanza(key, can=["tokens:read"], users=["user-2"], scopes=[CALENDAR_READONLY])
    await world.rewrite_callers({"calendar-sync": stanza(world.key), "limited": limited})
    assert await _ask(world, "GET", TOKEN, key=key) == 403
    assert await _ask(world, "DELETE", GRANTS, key=key) == 403
    wide = "/v1/users/user-2/token?scope=" + GMAIL_READONLY
    assert await _ask(world, "GET", wide, key=key) == 403
    items = {"requests": [{"user_id": "user-1"}]}
    assert await _ask(world, "POST", "/v1/tokens", key=key, json=items) == 200
    refused: Found = ("request_refused", "forbidden", "limited", "user-1", False, [])
    assert await _records(world, count=4) == [
        refused,
        refused,
        ("token_refused", "scope_not_allowed", "limited", "user-2", False, [GMAIL_READONLY]),
        refused,
    ]


async def test_403_for_a_link_with_forbidden_scopes_is_audited(world: World) -> None:
    body = {"scopes": ["https://www.googleapis.com/auth/drive"]}
    assert await _ask(world, "POST", LINKS, json=body) == 403
    assert await _records(world) == [
        ("connect_link", "scope_not_allowed", "calendar-sync", "user-1", False, body["scopes"])
    ]


async def test_404_409_and_503_are_audited(world: World) -> None:
    assert await _ask(world, "GET", TOKEN) == 404
    await world.connect()
    world.clock.advance(timedelta(hours=2))
    world.standin.faults.next("token", Fault.http(500))
    assert await _ask(world, "GET", TOKEN) == 503
    world.clock.advance(timedelta(minutes=2))
    world.standin.faults.always("token", Fault.invalid_grant())
    assert await _ask(world, "GET", TOKEN) == 409
    for outcome in ("grant_not_found", "google_unavailable", "reauthorization_required"):
        (refused,) = await audited(world, "token_refused", outcome)
        assert (refused["caller"], refused["user_id"]) == ("calendar-sync", "user-1")


async def test_503_without_postgresql_is_audited_when_it_is_back(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    async with database_unavailable(world, postgres):
        assert await _ask(world, "GET", "/v1/users/user-2/token") == 503
        assert await _ask(world, "DELETE", GRANTS) == 503
        assert await _ask(world, "POST", LINKS, json={"scopes": [CALENDAR_READONLY]}) == 503
    records = await _records(world, count=3)
    assert [record[:4] for record in records] == [
        ("token_refused", "storage_unavailable", "calendar-sync", "user-2"),
        ("grant_revoked", "storage_unavailable", "calendar-sync", "user-1"),
        ("connect_link", "storage_unavailable", "calendar-sync", "user-1"),
    ]
    await _verify(world)


async def test_a_refresh_is_audited_with_its_caller(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=2))
    assert await _ask(world, "GET", TOKEN) == 200
    (refreshed,) = await _records(world, action="token_refreshed")
    assert refreshed[:5] == ("token_refreshed", "refreshed", "calendar-sync", "user-1", True)
    assert CALENDAR_READONLY in refreshed[5]


async def test_a_link_and_a_revocation_are_audited(world: World) -> None:
    assert await _ask(world, "POST", LINKS, json={"scopes": [CALENDAR_READONLY]}) == 201
    await world.connect()
    assert await _ask(world, "DELETE", GRANTS) == 204
    link, revoked = await _records(world, count=2)
    assert link[:5] == ("connect_link", "created", "calendar-sync", "user-1", False)
    assert revoked[:5] == ("grant_revoked", "ok", "calendar-sync", "user-1", True)
    assert CALENDAR_READONLY in revoked[5]


@pytest.mark.parametrize(
    ("deny", "outcome"), [(False, "connected"), (True, "denied:access_denied")]
)
async def test_a_consent_is_audited(world: World, deny: bool, outcome: str) -> None:
    await world.connect(deny=deny)
    (row,) = await audited(world, "consent", outcome)
    assert (row["caller"], row["user_id"]) == ("calendar-sync", "user-1")
    assert CALENDAR_READONLY in row["scopes"]
    assert (row["account_sub"] is None) == deny
    assert row["request_id"]
    assert ADA not in str(row)


async def _until_written(world: World, user_id: str) -> None:
    async with asyncio.timeout(10):
        query = "SELECT FROM audit_events WHERE user_id = $1"
        while not await world.sql(query, user_id):  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.05)


FORGERIES = [
    "x\ty\tz",
    "x\n2026-01-01 00:00:00+00\tconsent\tconnected\tevil\tvictim\t108\t\\N\tr\t1",
    "x\\n\\.\n",
    "\\N",
    "\\.",
    "x\r\n\\.\r\n",
    "{a,b}",
    "'; DROP TABLE audit_events; --",
    "x" * 60_000,
    "\u202e\x1b[2J",
]


@pytest.mark.parametrize("text", FORGERIES, ids=range(len(FORGERIES)))
async def test_no_text_of_a_caller_can_forge_a_record(world: World, text: str) -> None:
    """In the user id (also in a batch), the account, the scope and the request id."""
    asked = quote(text, safe="")
    paths = [f"/v1/users/{asked}/token", f"{TOKEN}?account={asked}", f"{TOKEN}?scope={asked}"]
    for path in paths:
        assert await _ask(world, "GET", path) in (400, 403, 404, 414, 431)
    items = {"requests": [{"user_id": text}, {"user_id": "user-1", "account": text}]}
    assert await _ask(world, "POST", "/v1/tokens", json=items) in (200, 400)
    headers = {b"Authorization": b"Bearer wrong", b"X-Request-Id": text[:5000].encode()}
    await world.internal.get(TOKEN, headers=headers)
    assert await _ask(world, "GET", "/v1/users/last/token") == 404
    await _until_written(world, "last")
    rows = await world.sql("SELECT * FROM audit_events ORDER BY id")
    assert len(rows) <= 8
    assert {row["action"] for row in rows} <= {"token_refused", "request_refused"}
    assert {row["caller"] for row in rows} <= {"calendar-sync", None}
    assert not [row for row in rows if row["user_id"] == "victim"]
    for row in rows:
        assert len(str(row)) < 10_000
    await _verify(world)
