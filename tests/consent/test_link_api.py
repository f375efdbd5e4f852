"""`POST /v1/users/{user_id}/connect-links`: which caller may create which link."""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from broker.consent.links import CONNECT_LINK_LIFETIME
from tests.consent.harness import API, KEY, LOOPBACK, RETURN_TO, STRICT_KEY, ConsentWorld, query_of
from tests.support.scopes import CALENDAR_READONLY, DRIVE_READONLY, EMAIL, TASKS_READONLY


async def _requested_scopes(world: ConsentWorld, **body: Any) -> list[str]:
    url = await (await world.browser()).open(await world.link(**body))
    return query_of(url)["scope"].split()


async def _links(world: ConsentWorld) -> int:
    return int(await world.database.fetchval("SELECT count(*) FROM connect_links"))


async def test_a_link_is_created(world: ConsentWorld) -> None:
    response = await world.request_link()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"id", "url", "expires_at"}
    parts = urlsplit(document["url"])
    assert f"{parts.scheme}://{parts.netloc}" == "https://app.example.com"
    assert parts.path == "/auth/google/authorize/alice"
    assert document["expires_at"].endswith("Z")
    assert (
        datetime.fromisoformat(document["expires_at"]) == world.clock.now() + CONNECT_LINK_LIFETIME
    )


async def test_the_url_encodes_the_user_id(world: ConsentWorld) -> None:
    link = await world.link("a%2Fb%3Fc%23d%20%C3%A9%25")
    path = "/auth/google/authorize/a%2Fb%3Fc%23d%20%C3%A9%25?link="
    assert link["url"].startswith("https://app.example.com" + path)


@pytest.mark.parametrize(
    ("uri", "origin"),
    [(API, "https://api.example.com"), (LOOPBACK, "http://localhost:8000")],
)
async def test_the_url_is_on_the_origin_of_the_redirect_uri(
    world: ConsentWorld, uri: str, origin: str
) -> None:
    link = await world.link(redirect_uri=uri)
    assert link["url"].startswith(f"{origin}/auth/google/authorize/")


async def test_scopes_may_be_a_string_with_spaces(world: ConsentWorld) -> None:
    assert await _requested_scopes(world, scopes=f"{CALENDAR_READONLY} {TASKS_READONLY}") == [
        "openid",
        "email",
        CALENDAR_READONLY,
        TASKS_READONLY,
    ]


async def test_identity_scopes_are_always_allowed_and_requested_once(world: ConsentWorld) -> None:
    scopes = ["openid", "email", EMAIL, CALENDAR_READONLY, CALENDAR_READONLY]
    assert await _requested_scopes(world, scopes=scopes) == ["openid", "email", CALENDAR_READONLY]
    assert await _requested_scopes(world, scopes=["openid"]) == ["openid", "email"]


@pytest.mark.parametrize(
    "scope", [DRIVE_READONLY, "profile", "https://www.googleapis.com/auth/calendar"]
)
async def test_check_10_a_scope_outside_the_brokers_list_is_refused(
    world: ConsentWorld, scope: str
) -> None:
    response = await world.request_link(scopes=[CALENDAR_READONLY, scope])
    assert response.status_code == 403
    problem = response.json()
    assert (problem["code"], problem["scopes"]) == ("scope_not_allowed", [scope])
    assert await world.audited() == [("connect_link", "scope_not_allowed")]
    assert len(world.google.requests) == 0


async def test_check_10_a_scope_outside_the_callers_list_is_refused(world: ConsentWorld) -> None:
    response = await world.request_link(key=STRICT_KEY, scopes=[TASKS_READONLY])
    assert (response.status_code, response.json()["code"]) == (403, "scope_not_allowed")


_MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("scopes", {"scopes": []}),
    ("scopes", {"scopes": ""}),
    ("scopes", {"scopes": 7}),
    ("scopes", {"scopes": None}),
    ("scopes", {"scopes": [CALENDAR_READONLY, 7]}),
    ("scopes", {"scopes": {CALENDAR_READONLY: True}}),
    ("scopes", {"scopes": [CALENDAR_READONLY + " " + TASKS_READONLY]}),
    ("scopes", {"scopes": ["a\u0000b"]}),
    ("scopes", {"scopes": [CALENDAR_READONLY] * 101}),
    ("return_to", {"return_to": "https://attacker.example/"}),
    ("return_to", {"return_to": RETURN_TO + "&x=1"}),
    ("return_to", {"return_to": RETURN_TO.upper()}),
    ("return_to", {"return_to": ""}),
    ("return_to", {"return_to": 7}),
    ("return_to", {"return_to": None}),
    ("redirect_uri", {"redirect_uri": "https://attacker.example/auth/google/callback"}),
    ("redirect_uri", {"redirect_uri": [API]}),
    ("login_hint", {"login_hint": ""}),
    ("login_hint", {"login_hint": "x" * 321}),
    ("login_hint", {"login_hint": "ada@example.com\r\nx: y"}),
    ("login_hint", {"login_hint": 7}),
    ("return_to", {"confirm": True}),
    ("confirm", {"confirm": "yes"}),
    ("confirm", {"confirm": 1}),
    ("returnTo", {"returnTo": RETURN_TO}),
    ("body", {"\ud800": 1}),
    ("body", {"": 1}),
    ("body", {"x" * 1000: 1}),
]


@pytest.mark.parametrize(("field", "body"), _MALFORMED, ids=[ascii(b)[:60] for _, b in _MALFORMED])
async def test_malformed_members_are_refused_by_name(
    world: ConsentWorld, field: str, body: dict[str, Any]
) -> None:
    response = await world.request_link(**body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["code"], response.json()["field"]) == ("invalid_request", field)
    assert await _links(world) == 0


@pytest.mark.parametrize("body", [{"scopes": ["\ud800"]}, {"login_hint": "\ud800"}], ids=ascii)
async def test_a_lone_surrogate_is_refused(world: ConsentWorld, body: dict[str, Any]) -> None:
    response = await world.request_link(**body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert await _links(world) == 0


async def test_scopes_are_required(world: ConsentWorld) -> None:
    response = await world.internal.post(
        "/v1/users/alice/connect-links", json={}, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert (response.status_code, response.json()["field"]) == (400, "scopes")


async def test_confirm_false_is_the_default(world: ConsentWorld) -> None:
    assert (await world.request_link(confirm=False)).status_code == 201


_CONFIRMED = pytest.mark.parametrize(
    ("key", "body", "confirm"),
    [
        (KEY, {}, False),
        (KEY, {"confirm": True}, True),
        (STRICT_KEY, {}, True),
        (STRICT_KEY, {"confirm": False}, True),
    ],
    ids=["neither", "request", "policy", "policy overrides request"],
)


@_CONFIRMED
async def test_a_link_must_be_confirmed_if_request_or_policy_demands_it(
    world: ConsentWorld, key: str, body: dict[str, Any], confirm: bool
) -> None:
    answer = await world.request_link(key=key, return_to=RETURN_TO, **body)
    assert answer.status_code == 201
    stored = await world.links.find(UUID(answer.json()["id"]))
    assert stored is not None
    assert stored.confirm is confirm


@pytest.mark.parametrize("body", [{}, {"confirm": False}, {"confirm": True}], ids=str)
async def test_a_link_that_must_be_confirmed_needs_a_return_to(
    world: ConsentWorld, body: dict[str, Any]
) -> None:
    response = await world.request_link(key=STRICT_KEY, **body)
    assert (response.status_code, response.json()["field"]) == (400, "return_to")
    assert await _links(world) == 0


@pytest.mark.parametrize("user_id", ["%2e", "%2E%2e"])
async def test_a_user_id_that_cannot_be_part_of_a_url_is_refused(
    world: ConsentWorld, user_id: str
) -> None:
    response = await world.request_link(user_id)
    assert (response.status_code, response.json()["field"]) == (400, "user_id")


async def test_an_unknown_key_gets_no_link(world: ConsentWorld) -> None:
    response = await world.request_link(key="tb_" + "x" * 43)
    assert response.status_code == 401
    assert await _links(world) == 0


async def test_a_user_outside_the_callers_policy_gets_no_link(world: ConsentWorld) -> None:
    response = await world.request_link("bob", key=STRICT_KEY)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


async def test_a_body_that_is_too_long_is_refused(world: ConsentWorld) -> None:
    response = await world.request_link(login_hint="x" * 1_000_000)
    assert response.status_code == 413


async def test_an_unavailable_database_answers_503(world: ConsentWorld) -> None:
    await world.database.close()
    response = await world.request_link()
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
    assert response.headers["retry-after"]


async def test_check_12_an_unlisted_return_to_creates_no_link(world: ConsentWorld) -> None:
    response = await world.request_link(return_to="https://attacker.example/?" + RETURN_TO)
    assert (response.status_code, response.json()["field"]) == (400, "return_to")
    assert await _links(world) == 0
