"""The checks of the callers' API, on the whole broker from outside."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from time import perf_counter
from typing import Any

import pytest

from broker.callers import registry
from broker.callers.keys import hash_key, new_key
from devstack.google_standin import Fault
from tests.support.probes import assert_hidden, audited, everything_stored
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import ADA, World, stanza

CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/users/user-1/token", None),
    ("GET", "/v1/users/user-1/grants", None),
    ("DELETE", "/v1/users/user-1/grants", None),
    ("DELETE", "/v1/users/user-1/grants/1", None),
    ("POST", "/v1/users/user-1/connect-links", {"scopes": [CALENDAR_READONLY]}),
]


UNKNOWN_CREDENTIALS: list[Callable[[str], dict[str, str]]] = [
    lambda _: {},
    lambda _: {"Authorization": ""},
    lambda _: {"Authorization": "Bearer"},
    lambda _: {"Authorization": "Bearer "},
    lambda key: {"Authorization": key},
    lambda key: {"Authorization": f"Basic {key}"},
    lambda key: {"Authorization": f"Bearer {key[:-1]}"},
    lambda key: {"Authorization": f"Bearer {key}x"},
    lambda key: {"Authorization": f"Bearer {key.swapcase()}"},
    lambda key: {"Authorization": f"Bearer {hash_key(key)}"},
    lambda key: {"Authorization": f"Bearer {hash_key(key).removeprefix('sha256:')}"},
    lambda key: {"Authorization": f"Bearer {key}, Bearer {key}"},
    lambda key: {"Authorization": f"Bearer {key} {key}"},
    lambda _: {"Authorization": "Bearer " + "x" * 20_000},
    lambda key: {"X-Api-Key": key},
    lambda key: {"Proxy-Authorization": f"Bearer {key}"},
    lambda key: {"Cookie": f"Authorization=Bearer {key}"},
]


@pytest.mark.parametrize("headers_of", UNKNOWN_CREDENTIALS)
async def test_check_23_without_a_known_credential_there_is_401(
    world: World, headers_of: Callable[[str], dict[str, str]]
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    for method, path, body in CALLS:
        answer = await world.internal.request(
            method, path, json=body, headers=headers_of(world.key)
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len(await world.grants()) == 1


async def test_check_23_a_removed_key_is_refused_even_for_cached_tokens(
    world: World,
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(new_key())})
    assert (await world.token()).status_code == 401


async def test_check_23_two_credentials_in_one_request_are_refused(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    twice = [("Authorization", f"Bearer {world.key}"), ("Authorization", "Bearer tb_another")]
    for headers in (twice, twice[::-1]):
        answer = await world.internal.get("/v1/users/user-1/token", headers=headers)
        assert answer.status_code == 401


async def test_check_25_no_header_changes_the_callers_identity(world: World) -> None:
    narrow = new_key()
    await world.rewrite_callers(
        {
            "calendar-sync": stanza(world.key),
            "reader": stanza(narrow, can=["tokens:read"], users=["user-2"]),
        }
    )
    await world.connect()
    assert (await world.token()).status_code == 200
    spoofed = {
        "Authorization": f"Bearer {narrow}",
        "X-User": "user-1",
        "X-Forwarded-User": "calendar-sync",
        "X-Remote-User": "calendar-sync",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": "127.0.0.1",
        "X-Original-URL": "/v1/users/user-2/token",
        "X-Rewrite-URL": "/v1/users/user-2/token",
        "X-HTTP-Method-Override": "GET",
        "Forwarded": "for=127.0.0.1;by=calendar-sync",
        "X-Client-Id": "calendar-sync",
        "Host": "127.0.0.1:8002",
    }
    for method, path, body in CALLS:
        answer = await world.internal.request(method, path, json=body, headers=spoofed)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    answer = await world.internal.get("/v1/users/user-1/token", headers={"X-User": "user-1"})
    assert answer.status_code == 401
    (refusal, *_) = await audited(world, "request_refused", "forbidden", count=len(CALLS))
    assert (refusal["caller"], refusal["user_id"]) == ("reader", "user-1")


async def test_check_25_a_forged_host_does_not_appear_in_a_link(world: World) -> None:
    answer = await world.internal.post(
        "/v1/users/user-1/connect-links",
        json={"scopes": [CALENDAR_READONLY]},
        headers={
            **world.authorization,
            "Host": "evil.example",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "Forwarded": "host=evil.example;proto=https",
        },
    )
    assert answer.json()["url"].startswith("http://127.0.0.1:8000/auth/google/authorize/user-1?")


async def test_check_26_only_hashes_of_keys_are_stored(world: World) -> None:
    await world.connect()
    await world.token()
    assert_hidden(world.key, world.callers_file.read_text(), await everything_stored(world))
    assert hash_key(world.key) in world.callers_file.read_text()


async def test_check_26_keys_are_compared_by_digest_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a lookup may depend on the digest, whose prefix no client can choose.

    With a hash that is equal for all keys, any key is accepted.
    """
    other = {"Authorization": f"Bearer {new_key()}"}
    assert (await world.internal.get(CALLS[1][1], headers=other)).status_code == 401
    digest = sha256(world.key.encode())
    monkeypatch.setattr(registry, "sha256", lambda _: digest)
    assert (await world.internal.get(CALLS[1][1], headers=other)).status_code == 200


async def test_check_27_a_caller_gets_no_user_or_scope_beyond_its_policy(world: World) -> None:
    narrow = new_key()
    await world.rewrite_callers(
        {
            "calendar-sync": stanza(world.key),
            "reader": stanza(narrow, users=["team-a/*"], scopes=[CALENDAR_READONLY]),
        }
    )
    for user_id in ("user-1", "team-a/1", "team-b/1"):
        await world.connect(user_id, scopes=[CALENDAR, CALENDAR_READONLY])
    asked = len(world.standin.requests)
    reader = {"Authorization": f"Bearer {narrow}"}
    for path in (
        "user-1/token",
        "team-b%2F1/token",
        "team-a%2f..%2fteam-b%2F1/../user-1/token",
        "TEAM-A%2F1/token",
        "%20team-a%2F1/token",
    ):
        answer = await world.internal.get(f"/v1/users/{path}", headers=reader)
        assert answer.status_code in (403, 404), path
        assert "access_token" not in answer.text
    wide = await world.internal.get(
        "/v1/users/team-a%2F1/token", params={"scope": CALENDAR}, headers=reader
    )
    assert (wide.status_code, wide.json()["code"]) == (403, "scope_not_allowed")
    assert len(world.standin.requests) == asked
    (refused, *_) = await audited(world, "request_refused", "forbidden")
    assert (refused["caller"], refused["user_id"]) == ("reader", "user-1")
    (refused, *_) = await audited(world, "token_refused", "scope_not_allowed")
    assert (refused["caller"], refused["scopes"]) == ("reader", [CALENDAR])
    own = await world.internal.get("/v1/users/team-a%2F1/token", headers=reader)
    assert own.json()["scope"] == CALENDAR_READONLY


PERMISSIONS = {
    "tokens:read": [CALLS[0]],
    "grants:read": [CALLS[1]],
    "grants:revoke": [CALLS[2], CALLS[3]],
    "links:create": [CALLS[4]],
}


@pytest.mark.parametrize("permission", PERMISSIONS)
async def test_check_27_each_permission_is_required(world: World, permission: str) -> None:
    await world.connect()
    key = new_key()
    lacking = stanza(key, can=[other for other in PERMISSIONS if other != permission])
    await world.rewrite_callers({"calendar-sync": stanza(world.key), "lacking": lacking})
    credential = {"Authorization": f"Bearer {key}"}
    for method, path, body in PERMISSIONS[permission]:
        answer = await world.internal.request(method, path, json=body, headers=credential)
        assert answer.status_code == 403, path
        assert permission in answer.json()["detail"]


async def test_check_28_each_answer_is_no_store(world: World) -> None:
    await world.connect()
    answers = [
        await world.token(),
        await world.token(),
        await world.token("unknown-user"),
        await world.token(scope=GMAIL_READONLY),
        await world.token(min_ttl="x"),
        await world.create_link("user-1"),
        await world.create_link("user-1", scopes="?"),
        await world.internal.get("/v1/users/user-1/grants", headers=world.authorization),
        await world.revoke(),
        await world.internal.get("/v1/users/user-1/token"),
        await world.internal.get("/nowhere"),
        await world.internal.put("/v1/users/user-1/token"),
        await world.ops.get("/metrics"),
        await world.ops.get("/readyz"),
        await world.ops.get("/livez"),
    ]
    assert {answer.headers.get("cache-control") for answer in answers} == {"no-store"}
    assert {answer.status_code for answer in answers} >= {200, 201, 204, 400, 401, 403, 404, 405}


@pytest.mark.parametrize(
    "name", ["access_token", "key", "api_key", "token", "authorization", "client_secret"]
)
async def test_check_29_a_credential_in_the_url_is_refused(world: World, name: str) -> None:
    await world.connect()
    for headers in ({}, world.authorization):
        answer = await world.internal.get(
            "/v1/users/user-1/token", params={name: world.key}, headers=headers
        )
        assert answer.status_code in (400, 401), name
        assert_hidden(world.key, answer.text)
        assert_hidden(world.standin.issued.access_tokens[0], answer.text)


@pytest.mark.parametrize("narrows", [True, False])
async def test_check_31_a_token_never_exceeds_requested_granted_and_allowed_scopes(
    world: World, narrows: bool
) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    world.standin.behave(narrows=narrows)
    answer = await world.token(scope=CALENDAR_READONLY)
    if narrows:
        assert answer.json()["scope"] == CALENDAR_READONLY
        token = world.standin.state.access_tokens[answer.json()["access_token"]]
        assert CALENDAR not in token.scopes
    else:
        assert answer.status_code == 503
        assert "access_token" not in answer.json()


async def test_check_31_the_first_token_of_a_consent_is_not_returned_to_a_narrower_caller(
    world: World,
) -> None:
    narrow = new_key()
    await world.rewrite_callers(
        {
            "calendar-sync": stanza(world.key),
            "reader": stanza(narrow, scopes=[CALENDAR_READONLY]),
        }
    )
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    world.standin.faults.always("token", Fault.http(503))
    answer = await world.internal.get(
        "/v1/users/user-1/token", headers={"Authorization": f"Bearer {narrow}"}
    )
    assert answer.status_code == 503


async def test_check_31_a_narrowed_policy_applies_to_cached_tokens(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    wide = (await world.token()).json()
    assert CALENDAR in wide["scope"].split()
    await world.rewrite_callers({"calendar-sync": stanza(world.key, scopes=[CALENDAR_READONLY])})
    narrow = (await world.token()).json()
    assert narrow["scope"] == CALENDAR_READONLY
    assert narrow["access_token"] != wide["access_token"]


async def test_check_32_oversized_input_is_refused_quickly(world: World) -> None:
    began = perf_counter()
    json_type = {**world.authorization, "Content-Type": "application/json"}
    answers = [
        await world.token("x" * 256),
        await world.token("x" * 30_000),
        await world.token(scope="x " * 15_000),
        await world.token(account="x" * 30_000),
        await world.token(min_ttl="9" * 30_000),
        await world.create_link("user-1", scopes=["x"] * 10_000),
        await world.create_link("user-1", login_hint="x" * 60_000),
        await world.create_link("user-1", scopes=["x" * 200_000]),
        await world.internal.post(CALLS[4][1], content="[" * 60_000, headers=json_type),
        await world.internal.post(CALLS[4][1], content="9" * 60_000, headers=json_type),
        await world.revoke(sub="9" * 300),
        await world.public.get("/auth/google/authorize/user-1?link=" + "x" * 30_000),
        await world.public.get("/auth/google/callback?state=" + "x" * 30_000),
        await world.public.get("/auth/google/callback?" + "&".join(f"a{n}" for n in range(5_000))),
    ]
    assert {answer.status_code // 100 for answer in answers} == {4}
    assert perf_counter() - began < 30


async def test_a_token_of_one_account_is_not_returned_for_another(world: World) -> None:
    world.standin.add_account("second@example.com")
    await world.connect(account=ADA)
    await world.connect(account="second@example.com")
    tokens = set()
    for _ in range(2):
        for account in (ADA, "second@example.com"):
            body = (await world.token(account=account)).json()
            assert body["account"]["email"] == account
            owner = world.standin.state.access_tokens[body["access_token"]].sub
            assert owner == body["account"]["sub"]
            tokens.add(body["access_token"])
        world.clock.advance(timedelta(minutes=1))
    assert len(tokens) == 2
