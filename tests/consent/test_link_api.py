"""`POST /v1/users/{user_id}/connect-links`: who may have which link."""

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from broker.consent.links import LINK_LIFE
from tests.consent.harness import (
    API,
    CALENDAR,
    DRIVE,
    EMAIL,
    KEY,
    LOOPBACK,
    RETURN_TO,
    STRICT_KEY,
    TASKS,
    ConsentWorld,
    query_of,
)


async def _asked_scopes(world: ConsentWorld, **body: Any) -> list[str]:
    url = await (await world.browser()).open(await world.link(**body))
    return query_of(url)["scope"].split()


async def _links(world: ConsentWorld) -> int:
    return int(await world.database.fetchval("SELECT count(*) FROM connect_links"))


async def test_a_link_is_created(world: ConsentWorld) -> None:
    response = await world.ask_for_link()
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"id", "url", "expires_at"}
    parts = urlsplit(document["url"])
    assert f"{parts.scheme}://{parts.netloc}" == "https://app.example.com"
    assert parts.path == "/auth/google/authorize/alice"
    assert document["expires_at"].endswith("Z")
    assert datetime.fromisoformat(document["expires_at"]) == world.clock.now() + LINK_LIFE


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
    assert await _asked_scopes(world, scopes=f"{CALENDAR} {TASKS}") == [
        "openid",
        "email",
        CALENDAR,
        TASKS,
    ]


async def test_identity_scopes_are_always_fine_and_asked_for_once(world: ConsentWorld) -> None:
    scopes = ["openid", "email", EMAIL, CALENDAR, CALENDAR]
    assert await _asked_scopes(world, scopes=scopes) == ["openid", "email", CALENDAR]
    assert await _asked_scopes(world, scopes=["openid"]) == ["openid", "email"]


@pytest.mark.parametrize("scope", [DRIVE, "profile", "https://www.googleapis.com/auth/calendar"])
async def test_check_10_a_scope_off_the_brokers_list_is_refused(
    world: ConsentWorld, scope: str
) -> None:
    response = await world.ask_for_link(scopes=[CALENDAR, scope])
    assert response.status_code == 403
    problem = response.json()
    assert (problem["code"], problem["scopes"]) == ("scope_not_allowed", [scope])
    assert await world.audited() == [("connect_link", "scope_not_allowed")]
    assert len(world.google.requests) == 0


async def test_check_10_a_scope_off_the_callers_list_is_refused(world: ConsentWorld) -> None:
    response = await world.ask_for_link(key=STRICT_KEY, scopes=[TASKS])
    assert (response.status_code, response.json()["code"]) == (403, "scope_not_allowed")


_MALFORMED: list[tuple[str, dict[str, Any]]] = [
    ("scopes", {"scopes": []}),
    ("scopes", {"scopes": ""}),
    ("scopes", {"scopes": 7}),
    ("scopes", {"scopes": None}),
    ("scopes", {"scopes": [CALENDAR, 7]}),
    ("scopes", {"scopes": {CALENDAR: True}}),
    ("scopes", {"scopes": [CALENDAR + " " + TASKS]}),
    ("scopes", {"scopes": ["a\u0000b"]}),
    ("scopes", {"scopes": [CALENDAR] * 101}),
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
    response = await world.ask_for_link(**body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["code"], response.json()["field"]) == ("invalid_request", field)
    assert await _links(world) == 0


@pytest.mark.parametrize("body", [{"scopes": ["\ud800"]}, {"login_hint": "\ud800"}], ids=ascii)
async def test_half_a_character_is_refused(world: ConsentWorld, body: dict[str, Any]) -> None:
    response = await world.ask_for_link(**body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert await _links(world) == 0


async def test_scopes_are_required(world: ConsentWorld) -> None:
    response = await world.internal.post(
        "/v1/users/alice/connect-links", json={}, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert (response.status_code, response.json()["field"]) == (400, "scopes")


async def test_confirm_false_is_as_good_as_none(world: ConsentWorld) -> None:
    assert (await world.ask_for_link(confirm=False)).status_code == 201


async def test_a_link_is_to_be_confirmed_if_the_request_or_the_policy_says_so(
    world: ConsentWorld,
) -> None:
    bodies: list[tuple[str, dict[str, Any], bool]] = [
        (KEY, {}, False),
        (KEY, {"confirm": True}, True),
        (STRICT_KEY, {}, True),
        (STRICT_KEY, {"confirm": False}, True),
    ]
    for key, body, confirm in bodies:
        answer = await world.ask_for_link(key=key, return_to=RETURN_TO, **body)
        assert answer.status_code == 201
        stored = await world.store.find(UUID(answer.json()["id"]))
        assert stored is not None
        assert stored.confirm is confirm


async def test_a_link_to_be_confirmed_needs_a_return_to(world: ConsentWorld) -> None:
    bodies: list[dict[str, Any]] = [{}, {"confirm": False}, {"confirm": True}]
    for body in bodies:
        response = await world.ask_for_link(key=STRICT_KEY, **body)
        assert (response.status_code, response.json()["field"]) == (400, "return_to")
    assert await _links(world) == 0


@pytest.mark.parametrize("user_id", ["%2e", "%2E%2e"])
async def test_a_user_id_that_no_url_can_carry_is_refused(
    world: ConsentWorld, user_id: str
) -> None:
    response = await world.ask_for_link(user_id)
    assert (response.status_code, response.json()["field"]) == (400, "user_id")


async def test_no_credential_gets_no_link(world: ConsentWorld) -> None:
    response = await world.ask_for_link(key="tb_" + "x" * 43)
    assert response.status_code == 401
    assert await _links(world) == 0


async def test_another_callers_user_gets_no_link(world: ConsentWorld) -> None:
    response = await world.ask_for_link("bob", key=STRICT_KEY)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")


async def test_a_body_that_is_too_long_is_refused(world: ConsentWorld) -> None:
    response = await world.ask_for_link(login_hint="x" * 1_000_000)
    assert response.status_code == 413


async def test_storage_away_is_said(world: ConsentWorld) -> None:
    await world.database.close()
    response = await world.ask_for_link()
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
    assert response.headers["retry-after"]


async def test_check_12_a_return_to_off_the_list_makes_no_link(world: ConsentWorld) -> None:
    response = await world.ask_for_link(return_to="https://attacker.example/?" + RETURN_TO)
    assert (response.status_code, response.json()["field"]) == (400, "return_to")
    assert await _links(world) == 0
