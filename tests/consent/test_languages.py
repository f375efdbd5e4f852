"""The consent's pages speak English and Korean, as the browser prefers."""

from tests.consent.harness import TASKS, ConsentWorld

KOREAN_READER = {"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.8"}


async def test_a_korean_browser_connects_in_korean(world: ConsentWorld) -> None:
    browser = await world.browser()
    browser.http.headers.update(KOREAN_READER)
    page = await browser.connect(await world.link(scopes=[TASKS]))
    assert page.headers["content-language"] == "ko"
    assert page.headers["vary"] == "Accept-Language"
    assert '<html lang="ko"' in page.text
    assert "Google 계정이 연결됐어요" in page.text
    assert "할 일 보기" in page.text


async def test_refusals_and_errors_are_in_the_browsers_language(world: ConsentWorld) -> None:
    browser = await world.browser()
    for address in ("/auth/google/nothing", "/auth/google/callback?state=x&code=y"):
        korean = await browser.get(address, **KOREAN_READER)
        assert '<html lang="ko"' in korean.text
        assert korean.headers["content-language"] == "ko"
        assert '<html lang="en"' in (await browser.get(address)).text
    link = await world.link()
    await world.database.close()
    away = await browser.get(link["url"], **KOREAN_READER)
    assert away.status_code == 503
    assert "지금은 처리할 수 없어요" in away.text
