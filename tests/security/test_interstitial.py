"""Checks 13 to 15 for the interstitial."""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest

from broker.callers.model import Permission
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.probes import query_of
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import ADA, ORIGIN, RETURN_TO, World, open_world, stanza

CHROME = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
OWN_FORM = {**CHROME, "Sec-Fetch-Site": "same-origin", "Origin": "null"}


async def _link(world: World, user_id: str = "user-1", **body: object) -> str:
    return str((await world.create_link(user_id, **body)).raise_for_status().json()["url"])


def _proof(page: httpx2.Response) -> str:
    (proof,) = re.findall(r'name="proof" value="([^"]+)"', page.text)
    return str(proof)


async def _open_page(
    browser: httpx2.AsyncClient, link: str, headers: Mapping[str, str] = CHROME
) -> httpx2.Response:
    page = await browser.get(link, headers=headers)
    assert page.status_code == 200, page.text
    return page


async def _submit(
    browser: httpx2.AsyncClient, link: str, proof: str, headers: Mapping[str, str] = OWN_FORM
) -> httpx2.Response:
    return await browser.post(link, data={"proof": proof}, headers=headers)


async def _is_unclaimed(world: World, link: str) -> None:
    """True if no browser owns the link: a new browser can complete it."""
    async with world.browser() as browser:
        answer = await browser.get(link)
        assert answer.status_code == 303, answer.text


async def test_the_page_shows_the_caller_the_scopes_and_the_account(world: World) -> None:
    await world.rewrite_callers(
        {"calendar-sync": stanza(world.key, display_name="Acme & <Söhne> {0}")}
    )
    async with world.browser() as browser:
        page = await _open_page(browser, await _link(world, login_hint=ADA, return_to=RETURN_TO))
    shown = re.sub(r"</?bdi>", "", page.text)
    assert shown.count("Acme &amp; &lt;Söhne&gt; {0} asks to use your Google account") == 2
    assert "See your calendars" in page.text
    assert ADA in page.text
    assert "app.example.com" in page.text
    async with world.browser() as browser:
        page = await _open_page(browser, await _link(world))
    assert ADA not in page.text


async def test_the_page_shows_scopes_granted_before(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    async with world.browser() as browser:
        link = await _link(world, scopes=[CALENDAR], login_hint=ADA)
        page = await _open_page(browser, link)
        asked, kept = page.text.split("What you allowed before")
        assert "See, change, share and delete your calendars" in asked
        assert "See your calendars" in kept
        # Those scopes are requested from Google.
        to_google = await _submit(browser, link, _proof(page))
        scopes = query_of(to_google.headers["location"])["scope"].split()
        assert {CALENDAR, CALENDAR_READONLY} <= set(scopes)


async def test_check_14_the_form_is_a_post_answered_with_303(world: World) -> None:
    link = await _link(world)
    async with world.browser() as browser:
        page = await _open_page(browser, link)
        answer = await _submit(browser, link, _proof(page))
        assert answer.status_code == 303
        callback = world.standin.consent(answer.headers["location"], ADA)
        assert (await browser.get(callback)).status_code == 200
    assert len(await world.grants()) == 1


async def test_check_13_the_form_action_policy_is_as_narrow_as_possible(world: World) -> None:
    async with world.browser() as browser:
        page = await _open_page(browser, await _link(world, return_to=RETURN_TO))
    policy = page.headers["content-security-policy"]
    (form_action,) = re.findall(r"form-action ([^;]+)", policy)
    # The organisation's sign-in page may be on any host, but only over https.
    google = re.match(r"http://[^/]+", world.standin.base_url)
    assert google is not None
    assert set(form_action.split()) == {"'self'", "https:", google[0]}
    assert "script-src" not in policy
    assert "accept" in page.headers["vary"].lower()
    assert page.text.count("<form") == 1
    assert "action=" not in re.findall(r"<form[^>]*>", page.text)[0]


async def test_check_15_opening_the_page_binds_no_browser(world: World) -> None:
    link = await _link(world)
    for _ in range(2):
        async with world.browser() as browser:
            await _open_page(browser, link)
    assert await world.sql("SELECT 1 FROM consent_transactions") == []
    await _is_unclaimed(world, link)


UNFURLERS = [
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "facebookexternalhit/1.1",
    "WhatsApp/2.23.20.0",
    "TelegramBot (like TwitterBot)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (Windows NT 6.1) SkypeUriPreview Preview/0.5",
    "LinkedInBot/1.0 (compatible; Mozilla/5.0)",
    "Iframely/1.3.1 (+https://iframely.com/docs/about)",
]


@pytest.mark.parametrize("agent", UNFURLERS)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
async def test_check_15_link_previews_open_no_link(world: World, agent: str, accept: str) -> None:
    link = await _link(world, login_hint=ADA)
    async with world.browser() as browser:
        answer = await browser.get(link, headers={"User-Agent": agent, "Accept": accept})
        assert "location" not in answer.headers
        assert "set-cookie" not in answer.headers
        assert ADA not in answer.text
    await _is_unclaimed(world, link)


EMBEDDED: list[dict[str, str]] = [
    {"Accept": "image/avif,image/webp,*/*;q=0.8", "Sec-Fetch-Dest": "image"},
    {"Accept": "*/*", "Sec-Fetch-Mode": "no-cors"},
    {"Accept": "image/png,*/*", "User-Agent": "Mozilla/5.0 (iPhone) Safari/604.1"},
    {"Accept": "text/html", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", EMBEDDED)
async def test_check_15_a_link_used_as_an_image_opens_nothing(
    world: World, headers: dict[str, str]
) -> None:
    link = await _link(world)
    async with world.browser() as browser:
        answer = await browser.get(link, headers=headers)
        assert answer.status_code in (200, 503)
        assert "location" not in answer.headers
    await _is_unclaimed(world, link)


async def test_check_15_the_form_works_only_in_its_own_browser_for_its_own_link(
    world: World,
) -> None:
    link, attackers = await _link(world), await _link(world, "attacker")
    async with world.browser() as victim, world.browser() as attacker:
        proof = _proof(await _open_page(victim, link))
        foreign = _proof(await _open_page(attacker, attackers))
        tried = [
            await _submit(victim, attackers, foreign),
            await _submit(victim, attackers, proof),
            await _submit(attacker, attackers, proof),
            await _submit(victim, link, ""),
            await _submit(victim, link, proof[:-1]),
            await victim.post(link, headers=OWN_FORM, data={"proof": [proof, proof]}),
            await victim.post(link, headers=OWN_FORM, json={"proof": proof}),
            await victim.post(link, headers=OWN_FORM, data={"proof": proof, "x": "y" * 5000}),
        ]
        victim.cookies.clear()
        tried.append(await _submit(victim, link, proof))
    assert [answer.status_code for answer in tried] == [403] * 5 + [400] * 3 + [403]
    assert all("location" not in answer.headers for answer in tried)
    for each in (link, attackers):
        await _is_unclaimed(world, each)


@pytest.mark.parametrize(
    "headers",
    [
        {**OWN_FORM, "Sec-Fetch-Site": "cross-site"},
        {**OWN_FORM, "Sec-Fetch-Site": "same-site"},
        {**OWN_FORM, "Origin": "https://evil.example"},
        {**OWN_FORM, "Origin": ORIGIN.replace("8000", "8001")},
        {"Origin": "https://evil.example"},
    ],
)
async def test_check_15_a_form_of_another_origin_is_refused(
    world: World, headers: dict[str, str]
) -> None:
    link = await _link(world)
    async with world.browser() as browser:
        proof = _proof(await _open_page(browser, link))
        answer = await _submit(browser, link, proof, headers)
        assert (answer.status_code, "location" in answer.headers) == (403, False)
        assert (await _submit(browser, link, proof, {"Origin": ORIGIN})).status_code == 303


async def test_check_15_the_first_browser_to_submit_owns_the_link(
    world: World,
) -> None:
    link = await _link(world)
    async with world.browser() as first, world.browser() as second:
        proofs = [_proof(await _open_page(browser, link)) for browser in (first, second)]
        answers = await asyncio.gather(
            _submit(first, link, proofs[0]), _submit(second, link, proofs[1])
        )
        assert sorted(answer.status_code for answer in answers) == [303, 403]
        loser = second if answers[0].status_code == 303 else first
        page = await loser.get(link, headers=CHROME)
        assert page.status_code == 403
        assert "opened in another browser" in page.text


async def test_check_10_a_link_is_refused_when_its_caller_loses_the_permission(
    world: World,
) -> None:
    link = await _link(world)
    every = [permission.value for permission in Permission]
    without_links = [name for name in every if name != "links:create"]
    changes: list[dict[str, object]] = [
        {"can": without_links},
        {"users": ["another-user"]},
        {"scopes": [CALENDAR]},
    ]
    async with world.browser() as browser:
        for change in changes:
            await world.rewrite_callers({"calendar-sync": stanza(world.key, **change)})
            for headers in (CHROME, {}):
                answer = await browser.get(link, headers=headers)
                assert answer.status_code == 410
                assert "This link is no longer valid" in answer.text
        await world.rewrite_callers({"another": stanza(world.key)})
        assert (await browser.get(link)).status_code == 410
        await world.rewrite_callers({"calendar-sync": stanza(world.key)})
        assert (await browser.get(link)).status_code == 303


async def test_check_10_a_link_is_refused_when_its_scopes_are_no_longer_configured(
    world: World,
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
) -> None:
    link = await _link(world, scopes=[CALENDAR, CALENDAR_READONLY])
    folder = tmp_path / "narrower"
    folder.mkdir()
    fewer = {"GOOGLE_SCOPES": CALENDAR_READONLY}
    async with (
        open_world(folder, database_url, standin, clock, changes=fewer) as narrower,
        narrower.browser() as elsewhere,
        world.browser() as browser,
    ):
        for headers in (CHROME, {}):
            assert (await elsewhere.get(link, headers=headers)).status_code == 410
        consent = await browser.get(link)
        elsewhere.cookies.update(browser.cookies)
        answer = await elsewhere.get(standin.consent(consent.headers["location"], ADA))
        assert "This link is no longer valid" in answer.text
        assert not await narrower.grants()


async def test_check_15_a_signature_for_another_purpose_is_refused(
    world: World,
) -> None:
    link = await _link(world)
    async with world.browser() as browser:
        page = await _open_page(browser, link)
        token = query_of(link)["link"]
        cookie = browser.cookies["broker_browser"]
        for forged in (token, cookie, _proof(page).split(".")[0]):
            assert (await _submit(browser, link, forged)).status_code == 403


async def test_check_15_two_concurrent_tabs_can_both_submit(world: World) -> None:
    """A new browser gets a cookie with each page, and keeps the last one."""
    link = await _link(world)
    async with world.browser() as browser:
        earlier = _proof(await _open_page(browser, link))
        browser.cookies.clear()
        later = _proof(await _open_page(browser, link))
        shown_again = await _submit(browser, link, earlier)
        assert (shown_again.status_code, "location" in shown_again.headers) == (403, False)
        assert "open in two tabs" in shown_again.text
        assert await world.sql("SELECT 1 FROM consent_transactions") == []
        for proof in (_proof(shown_again), later):
            assert (await _submit(browser, link, proof)).status_code == 303


async def test_check_15_a_browser_without_cookies_does_not_get_the_page_again(
    world: World,
) -> None:
    link = await _link(world)
    async with world.browser() as browser:
        proof = _proof(await _open_page(browser, link))
        browser.cookies.clear()
        answer = await _submit(browser, link, proof)
    assert answer.status_code == 403
    assert "<form" not in answer.text
