"""The consent's pages are in the language that the browser prefers."""

import pytest

from tests.consent.harness import ConsentWorld
from tests.support.scopes import TASKS_READONLY

KOREAN_READER = {"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.8"}


async def test_a_korean_browser_connects_in_korean(world: ConsentWorld) -> None:
    browser = await world.browser()
    browser.http.headers.update(KOREAN_READER)
    page = await browser.connect(await world.link(scopes=[TASKS_READONLY]))
    assert page.headers["content-language"] == "ko"
    assert page.headers["vary"] == "Accept-Language"
    assert '<html lang="ko"' in page.text
    assert "Google 계정이 연결됐어요" in page.text
    assert "할 일 보기" in page.text


@pytest.mark.parametrize("path", ["/auth/google/nothing", "/auth/google/callback?state=x&code=y"])
async def test_refusals_and_errors_are_in_the_browsers_language(
    world: ConsentWorld, path: str
) -> None:
    browser = await world.browser()
    korean = await browser.get(path, **KOREAN_READER)
    assert '<html lang="ko"' in korean.text
    assert korean.headers["content-language"] == "ko"
    assert '<html lang="en"' in (await browser.get(path)).text


async def test_an_outage_is_shown_in_the_browsers_language(world: ConsentWorld) -> None:
    link = await world.link()
    await world.database.close()
    page = await (await world.browser()).get(link["url"], **KOREAN_READER)
    assert page.status_code == 503
    assert "지금은 처리할 수 없어요" in page.text
