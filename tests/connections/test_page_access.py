"""Access to the connections page: who may open it, and for how long."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from broker.app import assembled
from broker.connections.visits import Visits, VisitTokens
from broker.crypto.signing import Signer
from broker.database.database import Database
from devstack.google_standin import GoogleStandin
from tests.connections.support import grant_id, text_of
from tests.support.clock import ManualClock
from tests.support.connections_page import (
    connections_link,
    forms,
    open_connections,
    request_connections_link,
    send_form,
)
from tests.support.probes import audited, everything_stored, own_log
from tests.support.scopes import CALENDAR
from tests.support.world import ADA, ORIGIN, RETURN_TO, World, open_world


async def test_a_link_opens_the_page_and_leaves_the_address_bar(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect(scopes=[CALENDAR])
    page = await open_connections(world, browser)
    assert page.status_code == 200
    assert ADA in page.text
    assert "See, change, share and delete your calendars" in page.text
    assert "Signed in to calendar-sync as user-1" in text_of(page)


async def test_a_link_is_for_the_first_browser_only(
    world: World, browser: httpx2.AsyncClient
) -> None:
    link = await connections_link(world)
    await browser.get(link)
    async with world.browser() as other:
        refused = await other.get(link)
        assert refused.status_code == 410
        assert "This link has already been opened" in refused.text
        assert "set-cookie" not in refused.headers
        assert (await other.get("/connections")).status_code == 403
    await audited(world, "connections_page", "refused:link_used")
    again = await browser.get(link)
    assert (again.status_code, again.headers["location"]) == (303, "/connections")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("HEAD", {}),
        ("GET", {"Sec-Purpose": "prefetch"}),
        ("GET", {"Sec-Fetch-Dest": "image"}),
        ("GET", {"User-Agent": "Slackbot-LinkExpanding 1.0"}),
    ],
)
async def test_a_preview_does_not_use_a_link_up(
    world: World, browser: httpx2.AsyncClient, method: str, headers: dict[str, str]
) -> None:
    link = await connections_link(world)
    async with world.browser() as other:
        preview = await other.request(method, link, headers=headers)
        assert preview.content == b""
        assert "set-cookie" not in preview.headers
    assert (await browser.get(link)).status_code == 303


async def test_a_link_expires(world: World, browser: httpx2.AsyncClient) -> None:
    link = await connections_link(world)
    world.clock.advance(timedelta(minutes=10))
    assert (await browser.get(link)).status_code == 410
    assert "This link has expired" in (await browser.get(link)).text


@pytest.mark.parametrize("token", ["", "x", "a" * 5000, "0" * 32 + ".1." + "A" * 43])
async def test_a_link_with_an_invalid_token_is_refused(
    browser: httpx2.AsyncClient, token: str
) -> None:
    refused = await browser.get("/connections", params={"link": token})
    assert refused.status_code == 400
    assert "This link does not work" in refused.text


async def test_a_connect_link_opens_no_page(world: World, browser: httpx2.AsyncClient) -> None:
    link = (await world.create_link("user-1")).json()["url"]
    (token,) = parse_qs(urlsplit(link).query)["link"]
    assert (await browser.get("/connections", params={"link": token})).status_code == 400


@pytest.mark.parametrize("path", ["/connections", "/connections/withdraw?grant={grant}"])
async def test_without_a_visit_nothing_is_shown(
    world: World, browser: httpx2.AsyncClient, path: str
) -> None:
    await world.connect()
    refused = await browser.get(path.format(grant=await grant_id(world)))
    assert refused.status_code == 403
    assert ADA not in refused.text


async def test_a_visit_ends_after_15_minutes(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect()
    await open_connections(world, browser, return_to=RETURN_TO)
    world.clock.advance(timedelta(minutes=15))
    over = await browser.get("/connections")
    assert over.status_code == 403
    assert "You have been signed out" in over.text
    assert f'href="{RETURN_TO}"' in over.text
    assert ADA not in over.text


async def test_a_visit_ends_when_the_user_signs_out(
    world: World, browser: httpx2.AsyncClient
) -> None:
    page = await open_connections(world, browser, return_to=RETURN_TO)
    (form,) = forms(page, "/connections/leave")
    left = await send_form(browser, "/connections/leave", form)
    assert (left.status_code, left.headers["location"]) == (303, "/connections/closed")
    closed = await browser.get("/connections/closed")
    assert closed.status_code == 200
    assert f'href="{RETURN_TO}"' in closed.text
    assert (await browser.get("/connections")).status_code == 403


async def test_an_active_visit_is_not_shown_as_closed(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await open_connections(world, browser)
    answer = await browser.get("/connections/closed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/connections")


async def test_every_replica_identifies_the_visitor(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await open_connections(world, browser)
    async with assembled(world.settings, world.clock) as replica:
        transport = httpx2.ASGITransport(app=replica.public)
        async with httpx2.AsyncClient(
            transport=transport, base_url=ORIGIN, cookies=browser.cookies
        ) as elsewhere:
            assert ADA in (await elsewhere.get("/connections")).text


async def test_a_planted_cookie_is_never_adopted(world: World) -> None:
    """Session fixation: the visit gets a value that could not be known before."""
    planted = "p" * 43
    async with world.browser() as victim:
        victim.cookies.set("broker_connections", planted, domain="127.0.0.1")
        answer = await victim.get(await connections_link(world))
        assert planted not in answer.headers["set-cookie"]
    async with world.browser() as attacker:
        attacker.cookies.set("broker_connections", planted, domain="127.0.0.1")
        assert (await attacker.get("/connections")).status_code == 403


async def test_check_13_the_cookie_is_for_this_host_only(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    callback = "https://app.example.com/auth/google/callback"
    changes = {"GOOGLE_REDIRECT_URI": callback}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        link = await connections_link(world)
        assert link.startswith("https://app.example.com/connections?link=")
        async with world.browser("https://app.example.com") as browser:
            cookie = (await browser.get(link)).headers["set-cookie"]
            assert cookie.startswith("__Host-broker_connections=")
            attributes = set(cookie.lower().split("; ")[1:])
            assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
            assert (await browser.get("/connections")).status_code == 200
            # The same value is invalid under the name that any host may set.
            value = cookie.partition("=")[2].partition(";")[0]
            browser.cookies.clear()
            browser.cookies.set("broker_connections", value, domain="app.example.com")
            assert (await browser.get("/connections")).status_code == 403


async def test_only_hashes_of_visitors_are_stored(
    world: World, browser: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    link = await connections_link(world)
    await browser.get(link)
    await browser.get("/connections")
    cookie = browser.cookies["broker_connections"]
    stored = await everything_stored(world)
    for secret in (cookie, parse_qs(urlsplit(link).query)["link"][0]):
        assert secret not in stored
        assert secret not in own_log(caplog)
        assert secret not in (await world.ops.get("/metrics")).text


@pytest.mark.parametrize(
    "body",
    [{"return_to": RETURN_TO + "?"}, {"return_to": 1}, {"return_to": None}, {"scopes": []}],
    ids=str,
)
async def test_the_api_refuses_unlisted_addresses_and_unknown_members(
    world: World, body: dict[str, Any]
) -> None:
    answer = await request_connections_link(world, **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_any_user_id_has_a_page(world: World, browser: httpx2.AsyncClient) -> None:
    page = await open_connections(world, browser, "...")
    assert "Nothing is connected" in page.text
    page = await open_connections(world, browser, '<b>"&/한글')
    assert "&lt;b&gt;&#34;&amp;/한글" in page.text
    assert "<b>" not in page.text


async def test_ended_visits_are_purged(world: World, browser: httpx2.AsyncClient) -> None:
    await open_connections(world, browser)
    await connections_link(world)
    database = Database(world.settings.database_url)
    await database.open()
    try:
        tokens = VisitTokens(Signer(world.settings.secret_keys, "any"), ORIGIN)
        visits = Visits(database, tokens, world.clock)
        world.clock.advance(timedelta(minutes=74))
        await visits.purge()
        assert len(await world.sql("SELECT FROM connections_visits")) == 1
        world.clock.advance(timedelta(minutes=2))
        await visits.purge()
        assert await world.sql("SELECT FROM connections_visits") == []
    finally:
        await database.close()
