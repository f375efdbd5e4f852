"""Users who click twice, go back, reload, keep two tabs open, refuse cookies or enlarge the text:
nothing breaks, and what they read is true.
"""

from itertools import pairwise

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.support import LONG_EMAIL, fill_with_connections
from tests.support.browser import continue_to_google
from tests.support.connections_page import connections_link
from tests.support.scopes import CALENDAR
from tests.support.world import ADA, RETURN_TO, World, stanza

pytestmark = pytest.mark.browser


def _origin(world: World) -> str:
    return world.settings.redirect_uris[0].rpartition("/auth/")[0]


async def _link(world: World, **body: object) -> str:
    return str((await world.create_link("user-1", **body)).raise_for_status().json()["url"])


async def _allow(page: Page) -> None:
    await page.get_by_role("button", name=ADA).click()
    await page.get_by_role("button", name="Allow").click()


async def test_two_clicks_lead_to_google_once(served: World, page: Page) -> None:
    await page.goto(await _link(served))
    await page.get_by_role("button", name="Continue to Google").dblclick()
    await _allow(page)
    await expect(page.locator("main.good")).to_contain_text(ADA)


async def test_two_clicks_withdraw_once(served: World, page: Page) -> None:
    await served.connect(browser=served.browser(_origin(served)))
    await page.goto(await connections_link(served))
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await page.get_by_role("button", name=f"Remove access for {ADA}").dblclick()
    await expect(page.get_by_role("status")).to_contain_text(f"{ADA} is no longer connected.")
    assert (await served.token()).status_code == 404


async def test_two_clicks_leave_once(served: World, page: Page) -> None:
    await page.goto(await connections_link(served, return_to=RETURN_TO))
    await page.get_by_role("button", name="Close").dblclick()
    await expect(page.locator("main.good")).to_contain_text("You can close this page.")
    await expect(page.get_by_role("link", name="Back to calendar-sync")).to_be_visible()


async def test_reloading_the_success_page_shows_that_the_account_is_connected(
    served: World, page: Page
) -> None:
    await page.goto(await _link(served))
    await continue_to_google(page)
    await _allow(page)
    await expect(page.locator("main.good")).to_contain_text(ADA)
    await page.reload()
    await expect(page.locator("main.calm .lead")).to_contain_text("still connected")
    assert (await served.token()).status_code == 200


async def test_of_two_tabs_with_one_link_the_later_shows_that_it_was_used(
    served: World, page: Page
) -> None:
    link = await _link(served)
    await page.goto(link)
    other = await page.context.new_page()
    await other.goto(link)
    await continue_to_google(other)
    await _allow(other)
    await expect(other.locator("main.good")).to_contain_text(ADA)
    await continue_to_google(page)
    await expect(page.locator("main.calm h1")).to_have_text("This link has already been used")
    await page.goto(link)
    await expect(page.locator("main.calm h1")).to_have_text("This link has already been used")


async def test_of_two_tabs_opened_at_the_same_time_each_leads_to_google(
    served: World, page: Page
) -> None:
    link = await _link(served)
    await page.goto(link)
    # As if both were requested before either was answered: the later cookie stays.
    await page.context.clear_cookies()
    other = await page.context.new_page()
    await other.goto(link)
    await continue_to_google(page)
    await expect(page.locator("main.calm .lead")).to_contain_text("open in two tabs")
    await continue_to_google(page)
    await _allow(page)
    await expect(page.locator("main.good")).to_contain_text(ADA)
    await continue_to_google(other)
    await expect(other.locator("main.calm h1")).to_have_text("This link has already been used")


async def test_without_cookies_the_connections_page_says_what_to_do(
    served: World, page: Page
) -> None:
    await page.goto(await connections_link(served))
    await page.context.clear_cookies()
    await page.reload()
    await expect(page.locator("main.calm")).to_contain_text("Allow cookies for this site")


async def test_withdrawing_a_pending_consent_shows_a_notice(served: World, page: Page) -> None:
    async with served.browser(_origin(served)) as browser:
        await served.connect(confirm=True, return_to=RETURN_TO, browser=browser)
    await page.goto(await connections_link(served))
    await expect(page.get_by_role("article", name=ADA)).to_contain_text("Allowed on")
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_text("calendar-sync asked for it")).to_be_visible()
    await page.get_by_role("button", name=f"Remove access for {ADA}").dblclick()
    await expect(page.get_by_role("status")).to_contain_text("No service can use it.")
    await expect(page.get_by_role("heading", name="Nothing is connected")).to_be_visible()


@pytest.mark.parametrize("locale", ["en-GB", "ko-KR"])
async def test_nothing_is_cut_off_at_twice_the_text_size(
    served: World, chromium: Browser, locale: str
) -> None:
    """WCAG 2.2, 1.4.4; on a phone, with the longest names possible."""
    await fill_with_connections(served)
    name = "Calendar of 🗓️ החברה with a name that goes on and on and on and on"[:64]
    host = "https://" + "a-very-long-label-of-the-products-host." * 3 + "example.com/"
    await served.rewrite_callers(
        {
            "calendar-sync": stanza(
                served.key, display_name=name.replace("\ufe0f", ""), return_to=[host]
            )
        }
    )
    context = await chromium.new_context(
        locale=locale, viewport={"width": 375, "height": 700}, bypass_csp=True
    )
    page = await context.new_page()
    before = await _link(served, scopes=[CALENDAR], login_hint=LONG_EMAIL, return_to=host)
    for url in (
        before,
        await connections_link(served, return_to=host),
        await connections_link(served, "nobody"),
    ):
        await page.goto(url)
        await page.add_style_tag(content="html { font-size: 200% }")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 375
    await context.close()


async def test_a_long_email_breaks_at_its_dots(served: World, chromium: Browser) -> None:
    await fill_with_connections(served)
    context = await chromium.new_context(viewport={"width": 375, "height": 700})
    page = await context.new_page()
    await page.goto(await connections_link(served))
    heading = page.get_by_role("heading", name=LONG_EMAIL)
    await expect(heading).to_have_text(LONG_EMAIL)
    # Each possible break is a <wbr>.
    assert await heading.locator("wbr").count() > 3
    await context.close()


async def test_a_usual_email_does_not_break_within_a_word_on_the_narrowest_phone(
    served: World, chromium: Browser
) -> None:
    await fill_with_connections(served)
    context = await chromium.new_context(viewport={"width": 320, "height": 640})
    page = await context.new_page()
    await page.goto(await connections_link(served))
    for email in ("grace@example.org", ADA):
        # The second line, if there is one, begins at a dot or at the @.
        lines = await _lines(page.get_by_role("heading", name=email))
        assert "".join(lines) == email
        assert all(line[0] == "@" or before[-1] == "." for before, line in pairwise(lines))
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    assert await _lines(page.locator(".question .email")) == [ADA]
    await context.close()


async def _lines(text: Locator) -> list[str]:
    """Return the text of each line."""
    return list(
        await text.evaluate("""element => {
            const lines = [];
            let bottom = null;
            const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                for (let at = 0; at < walker.currentNode.length; at++) {
                    const range = document.createRange();
                    range.setStart(walker.currentNode, at);
                    range.setEnd(walker.currentNode, at + 1);
                    const box = range.getBoundingClientRect();
                    if (bottom === null || box.top >= bottom - 1) lines.push("");
                    bottom = box.bottom;
                    lines[lines.length - 1] += range.toString();
                }
            }
            return lines;
        }""")
    )
