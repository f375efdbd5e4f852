"""The consent as a user sees it, in a real Chromium."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.support.browser import continue_to_google
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import ADA, World

pytestmark = pytest.mark.browser


async def _link(world: World, **body: object) -> str:
    response = await world.create_link("user-1", **body)
    assert response.status_code == 201, response.text
    return str(response.json()["url"])


async def _choose(page: Page, account: str = ADA) -> None:
    """Choose an account, up to Google's consent page."""
    await page.get_by_role("button", name=account).click()
    await expect(page.get_by_role("button", name="Allow")).to_be_visible()


async def _decide(page: Page, decision: str) -> None:
    await page.get_by_role("button", name=decision).click()


@pytest_asyncio.fixture
async def console_messages(page: Page) -> AsyncIterator[list[str]]:
    """Console messages and errors of a page, such as a breach of its policy."""
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield messages


async def test_a_user_connects(served: World, page: Page, console_messages: list[str]) -> None:
    loaded: list[str] = []
    await page.goto(await _link(served))
    await continue_to_google(page)
    await _choose(page)
    page.on("request", lambda request: loaded.append(request.url))
    await _decide(page, "Allow")
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Your Google account is connected"
    )
    await expect(page.get_by_text(ADA)).to_be_visible()
    await expect(page.get_by_role("listitem")).to_contain_text(["See your calendars"])
    (grant,) = await served.grants()
    assert grant["status"] == "active"
    # Nothing is loaded from other origins than the broker's and Google's.
    ours = (served.settings.redirect_uris[0].rpartition("/auth/")[0], served.standin.base_url)
    assert loaded
    assert [url for url in loaded if not url.startswith(ours)] == []
    assert console_messages == []


async def test_the_page_is_styled_under_its_own_policy(served: World, page: Page) -> None:
    await page.goto(served.settings.redirect_uris[0])
    card = page.get_by_role("main")
    await expect(card).to_have_css("border-top-left-radius", "16px")
    await page.emulate_media(color_scheme="light")
    await expect(card).to_have_css("background-color", "rgb(255, 255, 255)")
    await page.emulate_media(color_scheme="dark")
    await expect(card).to_have_css("background-color", "rgb(27, 30, 36)")


async def test_denying_and_retrying_with_the_keyboard(served: World, page: Page) -> None:
    await page.goto(await _link(served))
    await continue_to_google(page)
    await _choose(page)
    await _decide(page, "Cancel")
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "You did not allow the connection"
    )
    assert await served.grants() == []
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Try again")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("asks to use your Google")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Continue to Google")).to_be_focused()
    await page.keyboard.press("Enter")
    await _choose(page)
    await _decide(page, "Allow")
    await expect(page.get_by_text(ADA)).to_be_visible()
    assert len(await served.grants()) == 1


async def test_an_unticked_scope_is_shown(served: World, page: Page) -> None:
    await page.goto(await _link(served, scopes=[CALENDAR_READONLY, CALENDAR]))
    await continue_to_google(page)
    await _choose(page)
    await page.locator(f'input[value="{CALENDAR}"]').uncheck()
    await _decide(page, "Allow")
    missing = page.get_by_role("region", name="You did not allow it to")
    await expect(missing.get_by_role("listitem")).to_have_text(
        ["See, change, share and delete your calendars"]
    )
    (grant,) = await served.grants()
    assert CALENDAR not in grant["scopes"]


async def test_check_15_a_link_is_for_the_first_browser(
    served: World, page: Page, chromium: Browser
) -> None:
    link = await _link(served)
    await page.goto(link)
    other = await chromium.new_page()
    # Both see the interstitial, but only one can continue.
    await other.goto(link)
    await continue_to_google(page)
    await continue_to_google(other)
    await expect(other.get_by_role("heading", level=1)).to_have_text(
        "This link was opened in another browser"
    )
    await other.goto(link)
    await expect(other.get_by_role("heading", level=1)).to_have_text(
        "This link was opened in another browser"
    )
    await other.close()
    await _choose(page)
    await _decide(page, "Allow")
    await expect(page.get_by_text(ADA)).to_be_visible()


async def test_going_back_and_reloading_change_nothing(served: World, page: Page) -> None:
    link = await _link(served)
    await page.goto(link)
    await continue_to_google(page)
    await _choose(page)
    await _decide(page, "Allow")
    await expect(page.get_by_text(ADA)).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("your account is still connected")).to_be_visible()
    await page.goto(link)
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "This link has already been used"
    )
    assert len(await served.grants()) == 1


async def test_it_works_without_javascript_on_a_small_screen(
    served: World, chromium: Browser
) -> None:
    context = await chromium.new_context(
        java_script_enabled=False, viewport={"width": 320, "height": 480}
    )
    page = await context.new_page()
    await page.goto(await _link(served))
    await continue_to_google(page)
    await _choose(page)
    await _decide(page, "Allow")
    await expect(page.get_by_text(ADA)).to_be_visible()
    card = await page.get_by_role("main").bounding_box()
    assert card is not None
    assert card["x"] >= 0
    assert card["x"] + card["width"] <= 320
    await context.close()


async def test_check_13_scripts_cannot_read_the_cookie(served: World, page: Page) -> None:
    await page.goto(await _link(served))
    cookies = await page.context.cookies(served.settings.redirect_uris[0])
    (ours,) = [cookie for cookie in cookies if cookie["name"] == "broker_browser"]
    assert ours["httpOnly"]
    assert ours["sameSite"] == "Lax"
    assert ours["path"] == "/"


async def test_check_13_no_page_can_be_framed(served: World, page: Page) -> None:
    callback = served.settings.redirect_uris[0]
    await page.goto(served.standin.base_url + "/nothing")
    async with page.expect_console_message(
        lambda message: "frame-ancestors 'none'" in message.text
    ):
        await page.set_content(f'<iframe src="{callback}"></iframe>')
    frame = page.frame_locator("iframe")
    await expect(frame.get_by_text("We couldn't read this request")).to_have_count(0)
