"""The user's own page: who gets in, what is shown, what its forms do and what they refuse."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from broker.app import assembled
from broker.callers.keys import new_key
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.security.probes import audited, everything_stored, own_log
from tests.support.clock import ManualClock
from tests.support.outages import database_away
from tests.support.visits import ask_for_visit, ask_to_withdraw, enter, forms, send, visit_url
from tests.support.waiting import eventually
from tests.support.world import (
    ADA,
    CALENDAR,
    CALENDAR_READONLY,
    ORIGIN,
    RETURN_TO,
    World,
    open_world,
    stanza,
)

GRACE = "grace@example.com"


@pytest.fixture
async def browser(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    """One browser with its own cookies."""
    async with world.browser() as opened:
        yield opened


async def _grant_id(world: World, email: str = ADA, user_id: str = "user-1") -> str:
    (row,) = await world.sql(
        "SELECT id::text FROM grants WHERE email = $1 AND user_id = $2", email, user_id
    )
    return str(row["id"])


async def _break(world: World) -> None:
    """Google refuses the grant from now on."""
    world.clock.advance(timedelta(hours=2))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token()).status_code == 409


def _text(page: httpx2.Response) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.text)))


# Getting in.


async def test_a_link_opens_the_page_and_leaves_the_address(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect(scopes=[CALENDAR])
    page = await enter(world, browser)
    assert page.status_code == 200
    assert ADA in page.text
    assert "See, change, share and delete your calendars" in page.text
    assert "Signed in as user-1 of calendar-sync" in _text(page)


async def test_a_link_is_for_the_first_browser_only(
    world: World, browser: httpx2.AsyncClient
) -> None:
    link = await visit_url(world)
    await browser.get(link)
    async with world.browser() as stranger:
        refused = await stranger.get(link)
        assert refused.status_code == 410
        assert "This link has been opened already" in refused.text
        assert "set-cookie" not in refused.headers
        assert (await stranger.get("/connections")).status_code == 403
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
async def test_looking_does_not_use_a_link_up(
    world: World, browser: httpx2.AsyncClient, method: str, headers: dict[str, str]
) -> None:
    link = await visit_url(world)
    async with world.browser() as looking:
        looked = await looking.request(method, link, headers=headers)
        assert looked.content == b""
        assert "set-cookie" not in looked.headers
    assert (await browser.get(link)).status_code == 303


async def test_a_link_expires(world: World, browser: httpx2.AsyncClient) -> None:
    link = await visit_url(world)
    world.clock.advance(timedelta(minutes=10))
    assert (await browser.get(link)).status_code == 410
    assert "This link has expired" in (await browser.get(link)).text


@pytest.mark.parametrize("token", ["", "x", "a" * 5000, "0" * 32 + ".1." + "A" * 43])
async def test_a_link_that_is_not_ours_is_refused(browser: httpx2.AsyncClient, token: str) -> None:
    refused = await browser.get("/connections", params={"link": token})
    assert refused.status_code == 400
    assert "This link does not work" in refused.text


async def test_a_connect_link_opens_no_page(world: World, browser: httpx2.AsyncClient) -> None:
    link = (await world.create_link("user-1")).json()["url"]
    (token,) = parse_qs(urlsplit(link).query)["link"]
    assert (await browser.get("/connections", params={"link": token})).status_code == 400


async def test_without_a_visit_nothing_is_shown(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect()
    for path in ("/connections", f"/connections/withdraw?grant={await _grant_id(world)}"):
        refused = await browser.get(path)
        assert refused.status_code == 403
        assert ADA not in refused.text


async def test_a_visit_ends_after_a_quarter_of_an_hour(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await enter(world, browser, return_to=RETURN_TO)
    world.clock.advance(timedelta(minutes=15))
    over = await browser.get("/connections")
    assert over.status_code == 403
    assert "Your connections are closed" in over.text
    assert f'href="{RETURN_TO}"' in over.text
    assert ADA not in over.text


async def test_a_visit_ends_when_the_visitor_is_done(
    world: World, browser: httpx2.AsyncClient
) -> None:
    page = await enter(world, browser, return_to=RETURN_TO)
    (form,) = forms(page, "/connections/leave")
    left = await send(browser, "/connections/leave", form)
    assert (left.status_code, left.headers["location"]) == (303, "/connections/closed")
    closed = await browser.get("/connections/closed")
    assert closed.status_code == 200
    assert f'href="{RETURN_TO}"' in closed.text
    assert (await browser.get("/connections")).status_code == 403


async def test_a_page_that_is_open_is_not_said_to_be_closed(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await enter(world, browser)
    answer = await browser.get("/connections/closed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/connections")


async def test_every_replica_knows_the_visitor(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect()
    await enter(world, browser)
    async with assembled(world.settings, world.clock) as replica:
        transport = httpx2.ASGITransport(app=replica.public)
        async with httpx2.AsyncClient(
            transport=transport, base_url=ORIGIN, cookies=browser.cookies
        ) as elsewhere:
            assert ADA in (await elsewhere.get("/connections")).text


async def test_a_cookie_planted_before_is_never_taken_over(world: World) -> None:
    """Session fixation: the visit gets a value that nobody can have known."""
    planted = "p" * 43
    async with world.browser() as victim:
        victim.cookies.set("broker_connections", planted, domain="127.0.0.1")
        answer = await victim.get(await visit_url(world))
        assert planted not in answer.headers["set-cookie"]
    async with world.browser() as attacker:
        attacker.cookies.set("broker_connections", planted, domain="127.0.0.1")
        assert (await attacker.get("/connections")).status_code == 403


async def test_check_13_the_cookie_is_for_this_host_alone(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    callback = "https://app.example.com/auth/google/callback"
    changes = {"GOOGLE_REDIRECT_URI": callback}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        link = await visit_url(world)
        assert link.startswith("https://app.example.com/connections?link=")
        async with world.browser("https://app.example.com") as browser:
            cookie = (await browser.get(link)).headers["set-cookie"]
            assert cookie.startswith("__Host-broker_connections=")
            attributes = set(cookie.lower().split("; ")[1:])
            assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
            assert (await browser.get("/connections")).status_code == 200
            # The same value under the name that any host may set is nobody's.
            value = cookie.partition("=")[2].partition(";")[0]
            browser.cookies.clear()
            browser.cookies.set("broker_connections", value, domain="app.example.com")
            assert (await browser.get("/connections")).status_code == 403


async def test_only_hashes_of_visitors_are_stored(
    world: World, browser: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    link = await visit_url(world)
    await browser.get(link)
    await browser.get("/connections")
    cookie = browser.cookies["broker_connections"]
    stored = await everything_stored(world)
    for secret in (cookie, parse_qs(urlsplit(link).query)["link"][0]):
        assert secret not in stored
        assert secret not in own_log(caplog)
        assert secret not in (await world.ops.get("/metrics")).text


async def test_the_api_refuses_other_addresses_and_members(world: World) -> None:
    refused: list[dict[str, Any]] = [
        {"return_to": RETURN_TO + "?"},
        {"return_to": 1},
        {"scopes": []},
    ]
    for body in refused:
        answer = await ask_for_visit(world, **body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_user_id_of_any_kind_has_a_page(world: World, browser: httpx2.AsyncClient) -> None:
    page = await enter(world, browser, "...")
    assert "Nothing is connected" in page.text
    page = await enter(world, browser, '<b>"&/한글')
    assert "&lt;b&gt;&#34;&amp;/한글" in page.text
    assert "<b>" not in page.text


# What is shown.


async def test_the_last_use_is_told_with_who_made_it(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    key = new_key()
    callers = {"mail-merge": stanza(key)}
    async with (
        open_world(tmp_path, database_url, standin, clock, callers=callers) as world,
        world.browser() as browser,
    ):
        await world.connect()
        assert "Last used Not yet" in _text(await enter(world, browser))
        await world.token()
        clock.advance(timedelta(minutes=2))
        assert "2 minutes ago by calendar-sync" in _text(await browser.get("/connections"))
        await world.internal.get(
            "/v1/users/user-1/token", headers={"Authorization": f"Bearer {key}"}
        )
        assert "just now by mail-merge" in _text(await browser.get("/connections"))

        async def is_written() -> bool:
            (row,) = await world.sql("SELECT last_used_by FROM grants")
            return bool(row["last_used_by"] == "mail-merge")

        await eventually(is_written)


async def test_other_users_connections_are_not_shown(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect("user-2", GRACE)
    page = await enter(world, browser, "user-1")
    assert GRACE not in page.text
    refused = await ask_to_withdraw(browser, await _grant_id(world, GRACE, "user-2"))
    assert refused.headers["location"] == "/connections"


async def test_a_broken_connection_says_so_and_can_be_connected_again(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await _break(world)
    page = await enter(world, browser)
    assert "Needs to be connected again" in page.text
    (form,) = forms(page, "/connections/connect")
    begun = await send(browser, "/connections/connect", form)
    assert begun.status_code == 303
    to_google = await browser.get(begun.headers["location"])
    asked = parse_qs(urlsplit(to_google.headers["location"]).query)
    assert asked["login_hint"] == [world.standin.account(ADA).sub]
    assert CALENDAR_READONLY in asked["scope"][0].split()
    back = await browser.get(world.standin.consent(to_google.headers["location"], ADA))
    assert back.headers["location"].startswith(f"{ORIGIN}/connections?status=connected")
    cleaned = await browser.get(back.headers["location"])
    assert (cleaned.status_code, cleaned.headers["location"]) == (303, "/connections")
    assert f"{ADA} is connected again." in _text(await browser.get("/connections"))
    assert (await world.token()).status_code == 200


async def test_an_address_that_claims_a_success_is_not_believed(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await enter(world, browser)
    link_id = (await world.create_link("user-1")).json()["id"]
    for claimed in (link_id, "x"):
        answer = await browser.get(f"/connections?status=connected&link_id={claimed}")
        assert answer.headers["location"] == "/connections"
        assert 'role="status"' not in (await browser.get("/connections")).text


async def test_connecting_again_that_is_denied_is_told(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await _break(world)
    (form,) = forms(await enter(world, browser), "/connections/connect")
    begun = await send(browser, "/connections/connect", form)
    to_google = await browser.get(begun.headers["location"])
    callback = world.standin.consent(to_google.headers["location"], ADA, deny=True)
    await browser.get((await browser.get(callback)).headers["location"])
    assert f"{ADA} was not connected again." in _text(await browser.get("/connections"))


async def test_the_page_stays_open_while_the_visitor_is_at_google(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await _break(world)
    (form,) = forms(await enter(world, browser), "/connections/connect")
    world.clock.advance(timedelta(minutes=14))
    await send(browser, "/connections/connect", form)
    world.clock.advance(timedelta(minutes=14))
    assert (await browser.get("/connections")).status_code == 200


@pytest.mark.parametrize("change", [{"can": ["tokens:read"]}, {"users": ["somebody-else"]}, None])
async def test_a_link_opens_nothing_that_its_caller_could_not_make_any_more(
    world: World, browser: httpx2.AsyncClient, change: dict[str, object] | None
) -> None:
    link = await visit_url(world, return_to=RETURN_TO)
    stanzas = {} if change is None else {"calendar-sync": stanza(world.key, **change)}
    await world.rewrite_callers(stanzas)
    refused = await browser.get(link)
    assert refused.status_code == 410
    assert "no longer works" in refused.text
    assert RETURN_TO not in refused.text
    assert (await browser.get("/connections")).status_code == 403
    await audited(world, "connections_page", "refused:link_withdrawn")


async def test_a_visit_ends_with_the_caller_who_let_it_in(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await enter(world, browser)
    asked = await ask_to_withdraw(browser, await _grant_id(world))
    (form,) = forms(asked, "/connections/withdraw")
    await world.rewrite_callers({})
    assert (await browser.get("/connections")).status_code == 403
    assert (await send(browser, "/connections/withdraw", form)).status_code == 403
    assert [row["status"] for row in await world.sql("SELECT status FROM grants")] == ["active"]


async def test_the_way_back_is_only_where_the_policy_still_leads(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await enter(world, browser, return_to=RETURN_TO)
    world.clock.advance(timedelta(minutes=16))
    assert RETURN_TO in (await browser.get("/connections")).text
    await world.rewrite_callers({"calendar-sync": stanza(world.key, return_to=[])})
    assert RETURN_TO not in (await browser.get("/connections")).text


async def test_the_page_has_the_name_that_people_know(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(world.key, display_name="Team Diary")})
    page = _text(await enter(world, browser))
    assert "Signed in as user-1 of Team Diary" in page
    assert "by Team Diary" in page
    assert "calendar-sync" not in page


async def test_what_waits_for_a_confirmation_is_shown_and_can_be_withdrawn(
    world: World, browser: httpx2.AsyncClient
) -> None:
    trip = await world.connect_unconfirmed()
    page = await enter(world, browser)
    assert ADA in page.text
    assert "Not confirmed yet" in _text(page)
    assert forms(page, "/connections/connect") == []
    (asked,) = re.findall(r'name="grant" value="([^"]*)"', page.text)
    (form,) = forms(await ask_to_withdraw(browser, asked), "/connections/withdraw")
    assert (await send(browser, "/connections/withdraw", form)).status_code == 303
    assert ADA not in (await browser.get("/connections")).text
    assert (await world.confirm(trip)).json()["code"] == "confirmation_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"can": ["tokens:read"]},
        {"users": ["somebody-else"]},
        {"scopes": [CALENDAR]},
        {"require_confirmation": True},
    ],
)
async def test_no_more_is_asked_than_the_caller_may_ask_for_now(
    world: World, browser: httpx2.AsyncClient, change: dict[str, object]
) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    await _break(world)
    (form,) = forms(await enter(world, browser), "/connections/connect")
    await world.rewrite_callers({"calendar-sync": stanza(world.key, **change)})
    page = await browser.get("/connections")
    assert forms(page, "/connections/connect") == []
    assert "To connect it again, go back to calendar-sync" in _text(page)
    refused = await send(browser, "/connections/connect", form)
    assert refused.headers["location"] == "/connections"
    assert "connected from here" in _text(await browser.get("/connections"))


async def test_storage_that_is_away_is_told_in_words(
    world: World, browser: httpx2.AsyncClient, postgres: EmbeddedPostgres
) -> None:
    form = await _withdrawal(world, browser)
    link = await visit_url(world)
    async with database_away(world, postgres):
        for answer in (
            await browser.get("/connections"),
            await browser.get(link),
            await send(browser, "/connections/withdraw", form),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert "Nothing was changed" in answer.text
    assert ADA in (await browser.get("/connections")).text
    assert (await browser.get(link)).status_code == 303


# Withdrawing.


async def test_asking_for_a_confirmation_changes_nothing(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await enter(world, browser)
    asked = await ask_to_withdraw(browser, await _grant_id(world))
    assert asked.status_code == 200
    assert "Withdraw this connection?" in asked.text
    assert ADA in asked.text
    assert (await world.token()).status_code == 200


async def test_check_14_withdrawing_ends_the_grant_as_the_api_does(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await world.token()
    await enter(world, browser)
    (form,) = forms(await ask_to_withdraw(browser, await _grant_id(world)), "/connections/withdraw")
    done = await send(browser, "/connections/withdraw", form)
    assert (done.status_code, done.headers["location"]) == (303, "/connections")
    assert (await world.token()).status_code == 404
    page = await browser.get("/connections")
    assert f"{ADA} is no longer connected." in _text(page)
    assert 'role="status"' in page.text
    assert 'role="status"' not in (await browser.get("/connections")).text
    assert await world.metric("broker_revocations_total", origin="user", outcome="revoked") == 1
    (record,) = await audited(world, "grant_revoked", "by_user")
    assert (record["caller"], record["user_id"]) == ("calendar-sync", "user-1")

    async def is_told() -> bool:
        return await world.metric("broker_revocations_total", origin="user", outcome="told") == 1

    await eventually(is_told)


async def test_withdrawing_twice_in_two_tabs_is_calm(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await enter(world, browser)
    grant_id = await _grant_id(world)
    tabs = [await ask_to_withdraw(browser, grant_id) for _ in range(2)]
    for tab in tabs:
        (form,) = forms(tab, "/connections/withdraw")
        assert (await send(browser, "/connections/withdraw", form)).status_code == 303
    assert "It had been withdrawn already" in _text(await browser.get("/connections"))
    again = await ask_to_withdraw(browser, grant_id)
    assert again.headers["location"] == "/connections"


async def test_what_was_withdrawn_can_be_connected_again_for_a_while(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await world.revoke()
    page = await enter(world, browser)
    assert "Recently withdrawn" in page.text
    assert len(forms(page, "/connections/connect")) == 1
    world.clock.advance(timedelta(days=30))
    page = await enter(world, browser)
    assert ADA not in page.text


# Whose forms count.


async def _withdrawal(world: World, browser: httpx2.AsyncClient) -> dict[str, str]:
    await world.connect()
    await enter(world, browser)
    asked = await ask_to_withdraw(browser, await _grant_id(world))
    (form,) = forms(asked, "/connections/withdraw")
    return form


async def _assert_nothing_happened(world: World, answer: httpx2.Response, status: int) -> None:
    assert answer.status_code == status
    assert "<h1>" in answer.text
    assert (await world.token()).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_a_form_of_another_origin_is_refused(
    world: World, browser: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    form = await _withdrawal(world, browser)
    answer = await send(browser, "/connections/withdraw", form, **headers)
    await _assert_nothing_happened(world, answer, 403)


async def test_a_form_without_the_visitors_token_is_refused(
    world: World, browser: httpx2.AsyncClient
) -> None:
    form = await _withdrawal(world, browser)
    (leave,) = forms(await browser.get("/connections"), "/connections/leave")
    for token in ("", "withdraw", form["token"][:-1], leave["token"]):
        answer = await send(browser, "/connections/withdraw", {**form, "token": token})
        await _assert_nothing_happened(world, answer, 403)


async def test_a_token_is_good_for_its_account_only(
    world: World, browser: httpx2.AsyncClient
) -> None:
    form = await _withdrawal(world, browser)
    await world.connect("user-1", GRACE)
    other = {**form, "grant": await _grant_id(world, GRACE)}
    answer = await send(browser, "/connections/withdraw", other)
    assert answer.status_code == 403
    assert [grant["status"] for grant in await world.grants()] == ["active", "active"]


async def test_another_visitors_form_is_refused(world: World, browser: httpx2.AsyncClient) -> None:
    form = await _withdrawal(world, browser)
    async with world.browser() as other:
        await enter(world, other)
        answer = await send(other, "/connections/withdraw", form)
        await _assert_nothing_happened(world, answer, 403)
    async with world.browser() as nobody:
        answer = await send(nobody, "/connections/withdraw", form)
        await _assert_nothing_happened(world, answer, 403)


async def test_a_form_sent_after_the_visit_is_refused(
    world: World, browser: httpx2.AsyncClient
) -> None:
    form = await _withdrawal(world, browser)
    world.clock.advance(timedelta(minutes=15))
    answer = await send(browser, "/connections/withdraw", form)
    await _assert_nothing_happened(world, answer, 403)


@pytest.mark.parametrize("body", [b"x" * 5000, b"grant=1&grant=2"])
async def test_what_is_no_form_is_refused(
    world: World, browser: httpx2.AsyncClient, body: bytes
) -> None:
    await _withdrawal(world, browser)
    answer = await browser.post(
        "/connections/withdraw",
        content=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    await _assert_nothing_happened(world, answer, 400)


async def test_check_13_every_answer_has_strict_headers(
    world: World, browser: httpx2.AsyncClient
) -> None:
    form = await _withdrawal(world, browser)
    answers = [
        await browser.get("/connections"),
        await ask_to_withdraw(browser, form["grant"]),
        await browser.get("/connections/closed"),
        await browser.get("/connections?link=x"),
        await browser.get("/connections/nothing"),
        await send(browser, "/connections/withdraw", {}),
        await send(browser, "/connections/withdraw", form),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", answer.text)


async def test_the_page_is_in_the_browsers_language(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await enter(world, browser)
    korean = {"Accept-Language": "ko-KR,ko;q=0.9"}
    for path in ("/connections", f"/connections/withdraw?grant={await _grant_id(world)}"):
        page = await browser.get(path, headers=korean)
        assert page.headers["content-language"] == "ko"
        assert page.headers["vary"] == "Accept-Language"
        assert '<html lang="ko"' in page.text
        assert "연결 해제" in page.text


async def test_visits_that_are_over_are_removed(world: World, browser: httpx2.AsyncClient) -> None:
    from broker.connections.visits import Visits
    from broker.database.database import Database

    await enter(world, browser)
    await visit_url(world)
    database = Database(world.settings.database_url)
    await database.open()
    try:
        visits = Visits(database, world.clock)
        world.clock.advance(timedelta(minutes=74))
        await visits.purge()
        assert len(await world.sql("SELECT FROM connections_visits")) == 1
        world.clock.advance(timedelta(minutes=2))
        await visits.purge()
        assert await world.sql("SELECT FROM connections_visits") == []
    finally:
        await database.close()


# What waits for a confirmation.


async def _waiting_for_another_service(world: World) -> None:
    """A consent that a service asked for, and another one than the visitor comes from."""
    key = new_key()
    await world.rewrite_callers(
        {
            "calendar-sync": stanza(world.key, display_name="Acme Calendar"),
            "mail-sync": stanza(key, display_name="Acme Mail"),
        }
    )
    world.key, own = key, world.key
    await world.connect_unconfirmed()
    world.key = own


async def test_what_waits_names_the_service_that_is_to_confirm_it(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await _waiting_for_another_service(world)
    page = await enter(world, browser)
    assert "Signed in as user-1 of Acme Calendar" in _text(page)
    assert "Acme Mail has not confirmed this connection yet" in _text(page)
    (row,) = await world.sql("SELECT link_id::text FROM pending_consents")
    asking = await ask_to_withdraw(browser, row["link_id"])
    assert "Acme Mail asked for it" in _text(asking)


async def test_withdrawing_what_waits_is_told(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect_unconfirmed()
    await enter(world, browser)
    (row,) = await world.sql("SELECT link_id::text FROM pending_consents")
    (form,) = forms(await ask_to_withdraw(browser, row["link_id"]), "/connections/withdraw")
    assert (await send(browser, "/connections/withdraw", form)).status_code == 303
    told = await browser.get("/connections")
    assert 'role="status">What was not confirmed yet is withdrawn.' in told.text
    await audited(world, "grant_revoked", "by_user")
    # A second click on the same button, or the page from before in another tab.
    assert (await send(browser, "/connections/withdraw", form)).status_code == 303
    told = await browser.get("/connections")
    assert 'role="status">That connection had been withdrawn already.' in told.text
    assert (await ask_to_withdraw(browser, row["link_id"])).status_code == 303
    assert "had been withdrawn already" in (await browser.get("/connections")).text


async def test_withdrawing_what_waits_beside_a_broken_connection_names_the_account(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await _break(world)
    await world.connect_unconfirmed()
    await enter(world, browser)
    (row,) = await world.sql("SELECT link_id::text FROM pending_consents")
    (form,) = forms(await ask_to_withdraw(browser, row["link_id"]), "/connections/withdraw")
    await send(browser, "/connections/withdraw", form)
    assert f"{ADA} is no longer connected." in _text(await browser.get("/connections"))
