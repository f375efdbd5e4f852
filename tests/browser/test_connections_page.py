"""The connections page as users see it: with a mouse, with a keyboard, without JavaScript, in both
languages and both colour schemes.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from tests.browser.support import break_grant, fill_with_connections
from tests.support.browser import continue_to_google
from tests.support.connections_page import connections_link
from tests.support.scopes import CALENDAR
from tests.support.world import ADA, RETURN_TO, World

pytestmark = pytest.mark.browser

Scheme = Literal["light", "dark"]

_AXE_OPTIONS = {"resultTypes": ["violations"]}


async def _violations(page: Page) -> str:
    results = await Axe().run(page, options=_AXE_OPTIONS)
    return "" if results.violations_count == 0 else results.generate_report()


@pytest_asyncio.fixture
async def console_messages(page: Page) -> AsyncIterator[list[str]]:
    """Console messages and errors of a page, such as a breach of its policy."""
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield messages


async def test_a_user_looks_withdraws_and_signs_out(
    served: World, page: Page, console_messages: list[str]
) -> None:
    await served.connect(browser=served.browser(_origin(served)))
    await page.goto(await connections_link(served, return_to=RETURN_TO))
    assert page.url == _origin(served) + "/connections"
    article = page.get_by_role("article", name=ADA)
    await expect(article.get_by_role("list", name="What you allowed")).to_contain_text(
        "See your calendars"
    )
    await article.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Remove access to this account?"
    )
    assert (await served.token()).status_code == 200
    await page.get_by_role("link", name="Keep it").click()
    await article.get_by_role("button", name=f"Remove access for {ADA}").click()
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_role("status")).to_have_text(f"{ADA} is no longer connected.")
    await expect(page).to_have_title(
        f"{ADA} is no longer connected. · Your Google connections · Google connections"
    )
    assert (await served.token()).status_code == 404
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    back = page.get_by_role("link", name="Back to calendar-sync")
    await expect(back).to_have_attribute("href", RETURN_TO)
    assert console_messages == []


async def test_a_broken_connection_is_fixed_from_the_page(
    served: World, page: Page, console_messages: list[str]
) -> None:
    await served.connect(browser=served.browser(_origin(served)))
    await break_grant(served)
    await page.goto(await connections_link(served))
    await page.get_by_role("button", name=f"Reconnect {ADA}").click()
    await continue_to_google(page)
    await page.get_by_role("button", name="Allow").click()
    await expect(page.get_by_role("status")).to_have_text(f"{ADA} has been reconnected.")
    assert page.url == _origin(served) + "/connections"
    assert (await served.token()).status_code == 200
    assert console_messages == []


async def test_the_back_button_shows_no_withdrawn_connection(served: World, page: Page) -> None:
    await served.connect(browser=served.browser(_origin(served)))
    await page.goto(await connections_link(served))
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_role("status")).to_be_visible()
    for _ in range(2):
        await page.go_back()
        await expect(page.get_by_role("article", name=ADA)).to_have_count(0)


async def test_no_page_kept_by_the_browser_reappears_after_a_change(
    served: World, bfcache_page: Page
) -> None:
    page = bfcache_page
    await served.connect(browser=served.browser(_origin(served)))
    await page.goto(await connections_link(served))
    await _mark(page)
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    assert await _is_marked_after_going_back(page), "this browser keeps no page"
    # Playwright loses track of a page that was restored.
    page = await page.context.new_page()
    await page.goto(_origin(served) + "/connections")
    await _mark(page)
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_role("status")).to_be_visible()
    await _mark(page)
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    for _ in range(2):
        assert not await _is_marked_after_going_back(page)
        await expect(page.get_by_text(ADA)).to_have_count(0)


async def _mark(page: Page) -> None:
    await page.evaluate("window.marked = true")


async def _is_marked_after_going_back(page: Page) -> bool:
    shown = page.expect_event("framenavigated")
    async with shown:
        await page.evaluate("setTimeout(() => history.back())")
    return bool(await page.evaluate("window.marked === true"))


async def test_two_tabs_of_one_visit_work_side_by_side(served: World, page: Page) -> None:
    await fill_with_connections(served)
    await page.goto(await connections_link(served))
    other = await page.context.new_page()
    await other.goto(_origin(served) + "/connections")
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_role("status")).to_be_visible()
    await other.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(other.get_by_role("status")).to_contain_text("Access was already removed")
    await other.get_by_role("button", name="Remove access for grace@example.org").click()
    await other.get_by_role("button", name="Remove access for grace@example.org").click()
    await expect(other.get_by_role("status")).to_contain_text("grace@example.org")


async def test_everything_works_with_the_keyboard_alone(served: World, page: Page) -> None:
    await served.connect(browser=served.browser(_origin(served)))
    await page.goto(await connections_link(served))

    async def tab_to(role: Literal["button", "link"], name: str) -> None:
        wanted = page.get_by_role(role, name=name)
        for _ in range(20):
            await page.keyboard.press("Tab")
            if await wanted.evaluate("element => element === document.activeElement"):
                width = await wanted.evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)")
                assert width >= 2, "the focus can't be seen"
                return
        pytest.fail(f"no key leads to {name}")

    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await tab_to("button", f"Remove access for {ADA}")
    await page.keyboard.press("Enter")
    await tab_to("link", "Keep it")
    await page.keyboard.press("Enter")
    await tab_to("button", f"Remove access for {ADA}")
    await page.keyboard.press("Space")
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Remove access to this account?"
    )
    await tab_to("button", f"Remove access for {ADA}")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_be_visible()
    await tab_to("button", "Close")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    assert (await served.token()).status_code == 404


async def test_it_needs_no_javascript(served: World, chromium: Browser) -> None:
    await fill_with_connections(served)
    context = await chromium.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(await connections_link(served))
    await page.get_by_text("5 more").click()
    await expect(page.get_by_text("See, change and delete your tasks")).to_be_visible()
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await page.get_by_role("button", name=f"Remove access for {ADA}").click()
    await expect(page.get_by_role("status")).to_have_text(f"{ADA} is no longer connected.")
    await context.close()


@pytest.mark.parametrize("locale", ["en-GB", "ko-KR"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(
    served: World, chromium: Browser, locale: str, scheme: Scheme
) -> None:
    await fill_with_connections(served)
    context = await chromium.new_context(
        locale=locale,
        color_scheme=scheme,
        # The policy allows no script, and axe is one.
        bypass_csp=True,
        viewport={"width": 360, "height": 740},
    )
    page = await context.new_page()
    found: list[str] = []

    async def examine() -> None:
        found.append(await _violations(page))

    await page.goto(await connections_link(served))
    await page.locator("summary").first.click()
    await examine()
    assert await _too_small(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.locator('form[action="/connections/withdraw"] button').first.click()
    await expect(page.locator("button.danger")).to_be_visible()
    await examine()
    await page.locator("button.danger").click()
    await expect(page.get_by_role("status")).to_be_visible()
    await examine()
    await page.locator('form[action="/connections/leave"] button').click()
    await page.wait_for_url("**/connections/closed")
    await examine()
    await page.goto(await connections_link(served, "nobody"))
    await examine()
    for path in ("/connections?link=x", "/auth/google/callback?state=x&code=y", "/nothing"):
        await page.goto(_origin(served) + path)
        await examine()
    await page.goto((await served.create_link("user-1", scopes=[CALENDAR])).json()["url"])
    await examine()
    await page.locator("form button").click()
    await page.get_by_role("button", name=ADA).click()
    await page.get_by_role("button", name="Allow").click()
    await expect(page.locator("main.good")).to_be_visible()
    await examine()
    await context.close()
    assert found == [""] * len(found)
    assert len(found) == 10


async def _too_small(page: Page) -> Sequence[str]:
    """Return the touch targets below 44 CSS pixels (links within text aside)."""
    targets = await page.locator("button, summary, a.button").all()
    boxes = [(await target.inner_text(), await target.bounding_box()) for target in targets]
    return [text for text, box in boxes if box is None or min(box["width"], box["height"]) < 44]


async def test_forced_colours_and_reduced_motion_are_respected(
    served: World, chromium: Browser
) -> None:
    await served.connect(browser=served.browser(_origin(served)))
    context = await chromium.new_context(forced_colors="active", reduced_motion="reduce")
    page = await context.new_page()
    await page.goto(await connections_link(served))
    button = page.get_by_role("button", name=f"Remove access for {ADA}")
    assert await button.evaluate("e => getComputedStyle(e).borderTopStyle") == "solid"
    assert await button.evaluate("e => getComputedStyle(e).transitionDuration") == "0s"
    await context.close()


def _origin(world: World) -> str:
    return world.settings.redirect_uris[0].rpartition("/auth/")[0]
