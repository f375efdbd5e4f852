"""A real Chromium for the tests: one a session, a fresh profile a test."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.optional_parts import skip_without

_PATIENCE = 60_000
"""Milliseconds that a page may take to come to what is waited for, on a busy machine."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = [
    # Its sandbox needs rights that containers rarely give; it visits only our own pages.
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    # Nothing but loopback is reachable, whatever a page may ask for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


def find_chromium() -> str | None:
    """The browser that `TESTS_CHROMIUM` names, or the machine's own."""
    named = os.environ.get("TESTS_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


def installed(path: str) -> str | None:
    """The browser that Playwright would install for itself, if it has."""
    return path if Path(path).is_file() else None


@pytest_asyncio.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The browser that all tests share; without one they are skipped, or fail where required."""
    async with async_playwright() as playwright:
        path = find_chromium() or installed(playwright.chromium.executable_path)
        if path is None:
            skip_without("there is no Chromium here: install one, or name it in TESTS_CHROMIUM")
        expect.set_options(timeout=_PATIENCE)
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        await browser.close()


_KEEPING = "CacheControlNoStoreEnterBackForwardCache:level/restore-unless-http-only-cookie-change"


@pytest_asyncio.fixture
async def keeping_page(chromium: Browser) -> AsyncIterator[Page]:
    """A tab of a browser that keeps pages for its back button, as people's browsers do."""
    own = await chromium.browser_type.launch(
        executable_path=find_chromium(),
        args=[*_ARGUMENTS, f"--enable-features=BackForwardCache,{_KEEPING}"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    context = await own.new_context()
    yield await context.new_page()
    await own.close()


@pytest_asyncio.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A tab with no cookies and no history."""
    context = await chromium.new_context()
    context.set_default_timeout(_PATIENCE)
    yield await context.new_page()
    await context.close()


async def go_on_to_google(page: Page) -> None:
    """Leave the page before Google by its button."""
    await page.get_by_role("button", name="Continue to Google").click()
