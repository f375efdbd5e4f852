"""A real Chromium for the tests: one process per session, one profile per test."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.optional_parts import skip_without

_TIMEOUT_MS = 60_000
"""Milliseconds within which a page must show the expected content, on a busy machine."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = [
    # Its sandbox needs privileges that containers rarely have; it visits only our own pages.
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    # Pages can connect only to loopback.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


def find_chromium() -> str | None:
    """Return the path in `TESTS_CHROMIUM`, or that of an installed browser."""
    named = os.environ.get("TESTS_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


def _if_installed(path: str) -> str | None:
    return path if Path(path).is_file() else None


@pytest_asyncio.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The browser that all tests share; without one, tests are skipped (`skip_without`)."""
    async with async_playwright() as playwright:
        path = find_chromium() or _if_installed(playwright.chromium.executable_path)
        if path is None:
            skip_without("there is no Chromium here: install one, or name it in TESTS_CHROMIUM")
        expect.set_options(timeout=_TIMEOUT_MS)
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        await browser.close()


_BFCACHE_LEVEL = (
    "CacheControlNoStoreEnterBackForwardCache:level/restore-unless-http-only-cookie-change"
)


@pytest_asyncio.fixture
async def bfcache_page(chromium: Browser) -> AsyncIterator[Page]:
    """A tab of a browser that keeps pages for its back button, as browsers do by default."""
    browser = await chromium.browser_type.launch(
        executable_path=find_chromium(),
        args=[*_ARGUMENTS, f"--enable-features=BackForwardCache,{_BFCACHE_LEVEL}"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    context = await browser.new_context()
    yield await context.new_page()
    await browser.close()


@pytest_asyncio.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A tab with no cookies and no history."""
    context = await chromium.new_context()
    context.set_default_timeout(_TIMEOUT_MS)
    yield await context.new_page()
    await context.close()


async def continue_to_google(page: Page) -> None:
    """Press the button of the interstitial."""
    await page.get_by_role("button", name="Continue to Google").click()
