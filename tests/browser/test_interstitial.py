"""The interstitial as a user sees it, with a mouse, a keyboard and a screen reader."""

import re
from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.support.browser import continue_to_google
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import ADA, RETURN_TO, World, stanza

pytestmark = pytest.mark.browser

Scheme = Literal["light", "dark"]


async def _link(world: World, **body: object) -> str:
    return str((await world.create_link("user-1", **body)).raise_for_status().json()["url"])


async def _full_link(world: World) -> str:
    """Create a link whose interstitial has all its parts."""
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.rewrite_callers({"calendar-sync": stanza(world.key, display_name="Acme Calendar")})
    return await _link(world, scopes=[CALENDAR], login_hint=ADA, return_to=RETURN_TO)


@pytest_asyncio.fixture
async def console_messages(page: Page) -> AsyncIterator[list[str]]:
    """Console messages, such as a breach of a page's policy."""
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    yield messages


async def test_the_page_shows_who_asks_for_what(
    served: World, page: Page, console_messages: list[str]
) -> None:
    await page.goto(await _full_link(served))
    await expect(page).to_have_title(re.compile("Acme Calendar asks to use your Google account"))
    asked = page.get_by_role("region", name="It would be able to")
    await expect(asked.get_by_role("listitem")).to_contain_text(["email", "See, change, share"])
    kept = page.get_by_role("region", name="What you allowed before")
    await expect(kept.get_by_role("listitem")).to_have_text(["See your calendars"])
    await expect(page.get_by_role("region", name="For this account")).to_contain_text(ADA)
    await expect(page.get_by_text("close this page")).to_be_visible()
    await continue_to_google(page)
    await expect(page.get_by_role("button", name="Allow")).to_be_visible()
    assert console_messages == []


async def test_without_a_prompt_google_redirects_the_browser_all_the_way_back(
    served: World, page: Page, console_messages: list[str]
) -> None:
    """One chain of redirects from form to product; Chromium checks `form-action` for each."""
    await page.goto(await _link(served))
    await continue_to_google(page)
    await page.get_by_role("button", name=ADA).click()
    await page.get_by_role("button", name="Allow").click()
    await page.route(f"{RETURN_TO}**", lambda route: route.fulfill(body="the product"))
    await page.goto(await _link(served, login_hint=ADA, return_to=RETURN_TO, confirm=True))
    await continue_to_google(page)
    await page.wait_for_url(re.compile(re.escape(RETURN_TO) + r"\?status=connected.*confirmation="))
    assert [text for text in console_messages if "Content Security Policy" in text] == []


async def test_check_15_another_sites_form_sends_no_browser_to_google(
    served: World, page: Page
) -> None:
    """Login CSRF: the attacker's page posts the attacker's own link in the victim's browser."""
    link = await _link(served)
    await page.goto(link)
    proof = await page.locator("input[name=proof]").input_value()
    # A neighbour on the same host, so that even the cookie is sent.
    await page.goto(served.standin.base_url + "/nothing")
    await page.set_content(
        f'<form method="post" action="{link}"><input name="proof" value="{proof}">'
        "<button>Win a prize</button></form>"
    )
    await page.get_by_role("button").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "We couldn't verify this request"
    )
    assert await served.sql("SELECT 1 FROM consent_transactions") == []


async def test_without_cookies_the_page_says_what_to_do(served: World, page: Page) -> None:
    await page.goto(await _link(served))
    await page.context.clear_cookies()
    await continue_to_google(page)
    await expect(page.get_by_text("Allow cookies for this site")).to_be_visible()


async def test_after_going_back_from_google_the_button_works_again(
    served: World, page: Page
) -> None:
    await page.goto(await _link(served))
    for _ in range(2):
        await continue_to_google(page)
        await expect(page.get_by_role("button", name=ADA)).to_be_visible()
        await page.go_back()
    await continue_to_google(page)
    await page.get_by_role("button", name=ADA).click()
    await page.get_by_role("button", name="Allow").click()
    await expect(page.get_by_text(ADA)).to_be_visible()


async def test_a_popup_keeps_its_opener(served: World, page: Page) -> None:
    """A product that opens the link in a popup gets the result from `return_to`."""
    link = await _link(served)
    await page.goto(served.standin.base_url + "/nothing")
    async with page.expect_popup() as opened:
        await page.evaluate("link => { window.open(link) }", link)
    popup = await opened.value
    await expect(popup.get_by_role("button", name="Continue to Google")).to_be_visible()
    assert await popup.evaluate("window.opener !== null")


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_and_nothing_overflows(
    served: World, chromium: Browser, scheme: Scheme, width: int
) -> None:
    context = await chromium.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
        # The policy allows no script, and axe is one.
        bypass_csp=True,
    )
    page = await context.new_page()
    for link in (await _link(served), await _full_link(served)):
        await page.goto(link)
        found = await Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        button = await page.get_by_role("button").bounding_box()
        assert button is not None
        assert button["height"] >= 44
    await page.context.clear_cookies()
    await continue_to_google(page)
    await expect(page.get_by_text("Allow cookies for this site")).to_be_visible()
    assert (await Axe().run(page)).violations_count == 0
    await context.close()
