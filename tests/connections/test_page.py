"""The connections page: what it shows, what its forms do and which they refuse."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.connections.support import break_grant, grant_id, text_of
from tests.support.clock import ManualClock
from tests.support.connections_page import (
    connections_link,
    forms,
    open_connections,
    open_withdrawal,
    send_form,
)
from tests.support.outages import database_unavailable
from tests.support.probes import audited
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, GRACE, ORIGIN, RETURN_TO, World, open_world, stanza


async def test_the_last_use_is_shown_with_its_caller(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    key = new_key()
    callers = {"mail-merge": stanza(key)}
    async with (
        open_world(tmp_path, database_url, standin, clock, callers=callers) as world,
        world.browser() as browser,
    ):
        await world.connect()
        assert "Last used Never" in text_of(await open_connections(world, browser))
        await world.token()
        clock.advance(timedelta(minutes=2))
        assert "2 minutes ago by calendar-sync" in text_of(await browser.get("/connections"))
        await world.internal.get(
            "/v1/users/user-1/token", headers={"Authorization": f"Bearer {key}"}
        )
        assert "less than a minute ago by mail-merge" in text_of(await browser.get("/connections"))

        async def is_written() -> bool:
            (row,) = await world.sql("SELECT last_used_by FROM grants")
            return bool(row["last_used_by"] == "mail-merge")

        await eventually(is_written)


async def test_other_users_connections_are_not_shown(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect("user-2", GRACE)
    page = await open_connections(world, browser, "user-1")
    assert GRACE not in page.text
    refused = await open_withdrawal(browser, await grant_id(world, GRACE, "user-2"))
    assert refused.headers["location"] == "/connections"


async def test_a_broken_connection_is_shown_and_can_be_connected_again(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await break_grant(world)
    page = await open_connections(world, browser)
    assert "Needs to be reconnected" in page.text
    (form,) = forms(page, "/connections/connect")
    begun = await send_form(browser, "/connections/connect", form)
    assert begun.status_code == 303
    to_google = await browser.get(begun.headers["location"])
    asked = parse_qs(urlsplit(to_google.headers["location"]).query)
    assert asked["login_hint"] == [world.standin.account(ADA).sub]
    assert CALENDAR_READONLY in asked["scope"][0].split()
    back = await browser.get(world.standin.consent(to_google.headers["location"], ADA))
    assert back.headers["location"].startswith(f"{ORIGIN}/connections?status=connected")
    cleaned = await browser.get(back.headers["location"])
    assert (cleaned.status_code, cleaned.headers["location"]) == (303, "/connections")
    assert f"{ADA} has been reconnected." in text_of(await browser.get("/connections"))
    assert (await world.token()).status_code == 200


@pytest.mark.parametrize("is_link", [True, False])
async def test_a_url_that_claims_a_success_is_not_believed(
    world: World, browser: httpx2.AsyncClient, is_link: bool
) -> None:
    await world.connect()
    await open_connections(world, browser)
    claimed = (await world.create_link("user-1")).json()["id"] if is_link else "x"
    answer = await browser.get(f"/connections?status=connected&link_id={claimed}")
    assert answer.headers["location"] == "/connections"
    assert 'role="status"' not in (await browser.get("/connections")).text


async def test_a_denied_reconnection_is_shown(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect()
    await break_grant(world)
    (form,) = forms(await open_connections(world, browser), "/connections/connect")
    begun = await send_form(browser, "/connections/connect", form)
    to_google = await browser.get(begun.headers["location"])
    callback = world.standin.consent(to_google.headers["location"], ADA, deny=True)
    await browser.get((await browser.get(callback)).headers["location"])
    assert f"{ADA} was not reconnected." in text_of(await browser.get("/connections"))


async def test_a_visit_stays_active_while_the_user_is_at_google(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await break_grant(world)
    (form,) = forms(await open_connections(world, browser), "/connections/connect")
    world.clock.advance(timedelta(minutes=14))
    await send_form(browser, "/connections/connect", form)
    world.clock.advance(timedelta(minutes=14))
    assert (await browser.get("/connections")).status_code == 200


@pytest.mark.parametrize("change", [{"can": ["tokens:read"]}, {"users": ["another-user"]}, None])
async def test_a_link_that_its_caller_could_not_create_now_opens_nothing(
    world: World, browser: httpx2.AsyncClient, change: dict[str, object] | None
) -> None:
    link = await connections_link(world, return_to=RETURN_TO)
    stanzas = {} if change is None else {"calendar-sync": stanza(world.key, **change)}
    await world.rewrite_callers(stanzas)
    refused = await browser.get(link)
    assert refused.status_code == 410
    assert "no longer works" in refused.text
    assert RETURN_TO not in refused.text
    assert (await browser.get("/connections")).status_code == 403
    await audited(world, "connections_page", "refused:link_withdrawn")


async def test_a_visit_ends_with_its_caller(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect()
    await open_connections(world, browser)
    asked = await open_withdrawal(browser, await grant_id(world))
    (form,) = forms(asked, "/connections/withdraw")
    await world.rewrite_callers({})
    assert (await browser.get("/connections")).status_code == 403
    assert (await send_form(browser, "/connections/withdraw", form)).status_code == 403
    assert [row["status"] for row in await world.sql("SELECT status FROM grants")] == ["active"]


async def test_the_way_back_leads_only_where_the_policy_still_allows(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await open_connections(world, browser, return_to=RETURN_TO)
    world.clock.advance(timedelta(minutes=16))
    assert RETURN_TO in (await browser.get("/connections")).text
    await world.rewrite_callers({"calendar-sync": stanza(world.key, return_to=[])})
    assert RETURN_TO not in (await browser.get("/connections")).text


async def test_the_page_shows_the_display_name(world: World, browser: httpx2.AsyncClient) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(world.key, display_name="Team Diary")})
    page = text_of(await open_connections(world, browser))
    assert "Signed in to Team Diary as user-1" in page
    assert "by Team Diary" in page
    assert "calendar-sync" not in page


async def test_a_pending_consent_is_shown_and_can_be_withdrawn(
    world: World, browser: httpx2.AsyncClient
) -> None:
    trip = await world.connect_pending()
    page = await open_connections(world, browser)
    assert ADA in page.text
    assert "Not confirmed yet" in text_of(page)
    assert forms(page, "/connections/connect") == []
    (asked,) = re.findall(r'name="grant" value="([^"]*)"', page.text)
    (form,) = forms(await open_withdrawal(browser, asked), "/connections/withdraw")
    assert (await send_form(browser, "/connections/withdraw", form)).status_code == 303
    assert ADA not in (await browser.get("/connections")).text
    assert (await world.confirm(trip)).json()["code"] == "confirmation_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"can": ["tokens:read"]},
        {"users": ["another-user"]},
        {"scopes": [CALENDAR]},
        {"require_confirmation": True},
    ],
)
async def test_a_reconnection_requests_no_more_than_the_caller_may_now(
    world: World, browser: httpx2.AsyncClient, change: dict[str, object]
) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    await break_grant(world)
    (form,) = forms(await open_connections(world, browser), "/connections/connect")
    await world.rewrite_callers({"calendar-sync": stanza(world.key, **change)})
    page = await browser.get("/connections")
    assert forms(page, "/connections/connect") == []
    assert "To reconnect it, go back to calendar-sync" in text_of(page)
    refused = await send_form(browser, "/connections/connect", form)
    assert refused.headers["location"] == "/connections"
    assert "from here. Go back to calendar-sync" in text_of(await browser.get("/connections"))


async def test_an_unavailable_database_is_explained(
    world: World, browser: httpx2.AsyncClient, postgres: EmbeddedPostgres
) -> None:
    form = await _withdrawal(world, browser)
    link = await connections_link(world)
    async with database_unavailable(world, postgres):
        for answer in (
            await browser.get("/connections"),
            await browser.get(link),
            await send_form(browser, "/connections/withdraw", form),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert "Nothing was changed" in answer.text
    assert ADA in (await browser.get("/connections")).text
    assert (await browser.get(link)).status_code == 303


# Withdrawal.


async def test_asking_for_a_confirmation_changes_nothing(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await open_connections(world, browser)
    asked = await open_withdrawal(browser, await grant_id(world))
    assert asked.status_code == 200
    assert "Remove access to this account?" in asked.text
    assert ADA in asked.text
    assert (await world.token()).status_code == 200


async def test_check_14_withdrawing_ends_the_grant_as_the_api_does(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await world.token()
    await open_connections(world, browser)
    (form,) = forms(await open_withdrawal(browser, await grant_id(world)), "/connections/withdraw")
    done = await send_form(browser, "/connections/withdraw", form)
    assert (done.status_code, done.headers["location"]) == (303, "/connections")
    assert (await world.token()).status_code == 404
    page = await browser.get("/connections")
    assert f"{ADA} is no longer connected." in text_of(page)
    assert 'role="status"' in page.text
    assert 'role="status"' not in (await browser.get("/connections")).text
    assert await world.metric("broker_revocations_total", origin="user", outcome="revoked") == 1
    (record,) = await audited(world, "grant_revoked", "by_user")
    assert (record["caller"], record["user_id"]) == ("calendar-sync", "user-1")

    async def is_sent() -> bool:
        return await world.metric("broker_revocations_total", origin="user", outcome="told") == 1

    await eventually(is_sent)


async def test_withdrawing_in_two_tabs_shows_that_it_was_already_withdrawn(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await open_connections(world, browser)
    connected = await grant_id(world)
    tabs = [await open_withdrawal(browser, connected) for _ in range(2)]
    for tab in tabs:
        (form,) = forms(tab, "/connections/withdraw")
        assert (await send_form(browser, "/connections/withdraw", form)).status_code == 303
    assert "Access was already removed" in text_of(await browser.get("/connections"))
    again = await open_withdrawal(browser, connected)
    assert again.headers["location"] == "/connections"


async def test_a_withdrawn_connection_can_be_connected_again_for_30_days(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await world.revoke()
    page = await open_connections(world, browser)
    assert "Recently removed" in page.text
    assert len(forms(page, "/connections/connect")) == 1
    world.clock.advance(timedelta(days=30))
    page = await open_connections(world, browser)
    assert ADA not in page.text


# Forms.


async def _withdrawal(world: World, browser: httpx2.AsyncClient) -> dict[str, str]:
    await world.connect()
    await open_connections(world, browser)
    asked = await open_withdrawal(browser, await grant_id(world))
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
    answer = await send_form(browser, "/connections/withdraw", form, **headers)
    await _assert_nothing_happened(world, answer, 403)


@pytest.mark.parametrize("kind", ["missing", "unsigned", "cut", "of another action"])
async def test_a_form_without_the_visitors_token_is_refused(
    world: World, browser: httpx2.AsyncClient, kind: str
) -> None:
    form = await _withdrawal(world, browser)
    (leave,) = forms(await browser.get("/connections"), "/connections/leave")
    tokens = {
        "missing": "",
        "unsigned": "withdraw",
        "cut": form["token"][:-1],
        "of another action": leave["token"],
    }
    answer = await send_form(browser, "/connections/withdraw", {**form, "token": tokens[kind]})
    await _assert_nothing_happened(world, answer, 403)


async def test_a_form_token_is_valid_for_its_account_only(
    world: World, browser: httpx2.AsyncClient
) -> None:
    form = await _withdrawal(world, browser)
    await world.connect("user-1", GRACE)
    other = {**form, "grant": await grant_id(world, GRACE)}
    answer = await send_form(browser, "/connections/withdraw", other)
    assert answer.status_code == 403
    assert [grant["status"] for grant in await world.grants()] == ["active", "active"]


async def test_another_visitors_form_is_refused(world: World, browser: httpx2.AsyncClient) -> None:
    form = await _withdrawal(world, browser)
    async with world.browser() as other:
        await open_connections(world, other)
        answer = await send_form(other, "/connections/withdraw", form)
        await _assert_nothing_happened(world, answer, 403)
    async with world.browser() as unknown:
        answer = await send_form(unknown, "/connections/withdraw", form)
        await _assert_nothing_happened(world, answer, 403)


async def test_a_form_sent_after_the_visit_is_refused(
    world: World, browser: httpx2.AsyncClient
) -> None:
    form = await _withdrawal(world, browser)
    world.clock.advance(timedelta(minutes=15))
    answer = await send_form(browser, "/connections/withdraw", form)
    await _assert_nothing_happened(world, answer, 403)


@pytest.mark.parametrize("body", [b"x" * 5000, b"grant=1&grant=2"])
async def test_a_malformed_form_is_refused(
    world: World, browser: httpx2.AsyncClient, body: bytes
) -> None:
    await _withdrawal(world, browser)
    answer = await browser.post(
        "/connections/withdraw",
        content=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    await _assert_nothing_happened(world, answer, 400)


_REQUESTS: dict[str, Callable[[httpx2.AsyncClient, dict[str, str]], Awaitable[httpx2.Response]]] = {
    "page": lambda browser, _form: browser.get("/connections"),
    "confirmation": lambda browser, form: open_withdrawal(browser, form["grant"]),
    "closed": lambda browser, _form: browser.get("/connections/closed"),
    "invalid link": lambda browser, _form: browser.get("/connections?link=x"),
    "not found": lambda browser, _form: browser.get("/connections/nothing"),
    "invalid form": lambda browser, _form: send_form(browser, "/connections/withdraw", {}),
    "withdrawal": lambda browser, form: send_form(browser, "/connections/withdraw", form),
}


@pytest.mark.parametrize("kind", _REQUESTS)
async def test_check_13_every_response_has_strict_headers(
    world: World, browser: httpx2.AsyncClient, kind: str
) -> None:
    form = await _withdrawal(world, browser)
    response = await _REQUESTS[kind](browser, form)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", response.text)


@pytest.mark.parametrize("path", ["/connections", "/connections/withdraw?grant={grant}"])
async def test_the_page_is_in_the_browsers_language(
    world: World, browser: httpx2.AsyncClient, path: str
) -> None:
    await world.connect()
    await open_connections(world, browser)
    korean = {"Accept-Language": "ko-KR,ko;q=0.9"}
    page = await browser.get(path.format(grant=await grant_id(world)), headers=korean)
    assert page.headers["content-language"] == "ko"
    assert page.headers["vary"] == "Accept-Language"
    assert '<html lang="ko"' in page.text
    assert "연결 해제" in page.text


# Pending consents.


async def _create_pending_consent_of_another_service(world: World) -> None:
    """Create one that is to be confirmed by another service than the visitor comes from."""
    key = new_key()
    await world.rewrite_callers(
        {
            "calendar-sync": stanza(world.key, display_name="Acme Calendar"),
            "mail-sync": stanza(key, display_name="Acme Mail"),
        }
    )
    world.key, own = key, world.key
    await world.connect_pending()
    world.key = own


async def test_a_pending_consent_names_the_service_that_must_confirm_it(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await _create_pending_consent_of_another_service(world)
    page = await open_connections(world, browser)
    assert "Signed in to Acme Calendar as user-1" in text_of(page)
    assert "Acme Mail has not confirmed this connection yet" in text_of(page)
    (row,) = await world.sql("SELECT link_id::text FROM pending_consents")
    asking = await open_withdrawal(browser, row["link_id"])
    assert "Acme Mail asked for it" in text_of(asking)


async def test_withdrawing_a_pending_consent_shows_a_notice(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect_pending()
    await open_connections(world, browser)
    (row,) = await world.sql("SELECT link_id::text FROM pending_consents")
    (form,) = forms(await open_withdrawal(browser, row["link_id"]), "/connections/withdraw")
    assert (await send_form(browser, "/connections/withdraw", form)).status_code == 303
    shown = await browser.get("/connections")
    assert 'role="status">The unconfirmed connection was removed.' in shown.text
    await audited(world, "grant_revoked", "by_user")
    # A second click on the same button, or an older page in another tab.
    assert (await send_form(browser, "/connections/withdraw", form)).status_code == 303
    shown = await browser.get("/connections")
    assert 'role="status">That connection was already removed.' in shown.text
    assert (await open_withdrawal(browser, row["link_id"])).status_code == 303
    assert "was already removed" in (await browser.get("/connections")).text


async def test_withdrawing_a_pending_consent_beside_a_broken_connection_names_the_account(
    world: World, browser: httpx2.AsyncClient
) -> None:
    await world.connect()
    await break_grant(world)
    await world.connect_pending()
    await open_connections(world, browser)
    (row,) = await world.sql("SELECT link_id::text FROM pending_consents")
    (form,) = forms(await open_withdrawal(browser, row["link_id"]), "/connections/withdraw")
    await send_form(browser, "/connections/withdraw", form)
    assert f"{ADA} is no longer connected." in text_of(await browser.get("/connections"))
