"""Check 15 with a lost connection to PostgreSQL while a pending consent is stored."""

from urllib.parse import parse_qs, urlsplit

import httpx2

from tests.support.lossy_link import LossyLink
from tests.support.waiting import eventually
from tests.support.world import ADA, GRACE, RETURN_TO, ConsentResult, World


async def _request_authorization(
    world: World, browser: httpx2.AsyncClient, url: str, account: str
) -> ConsentResult:
    to_google = await browser.get(url)
    assert to_google.status_code == 303, to_google.text
    callback = world.standin.consent(to_google.headers["location"], account)
    answer = await browser.get(callback)
    assert answer.status_code == 303, answer.text
    (link_id,) = parse_qs(urlsplit(answer.headers["location"]).query)["link_id"]
    return ConsentResult(answer, link_id)


async def _lose_the_commit(
    link: LossyLink, world: World, browser: httpx2.AsyncClient, url: str
) -> None:
    """Complete a consent whose commit succeeds, but whose result is lost."""
    link.drop_response_to(b"INSERT INTO pending_consents", b"COMMIT")
    consent = await _request_authorization(world, browser, url, ADA)
    assert link.has_dropped_response
    assert consent.status == "failed"

    async def is_stored() -> bool:
        return len(await world.sql("SELECT 1 FROM pending_consents")) == 1

    await eventually(is_stored, seconds=10)


async def _link(world: World) -> str:
    answer = await world.create_link("user-1", confirm=True, return_to=RETURN_TO)
    return str(answer.raise_for_status().json()["url"])


async def test_check_15_a_consent_whose_commit_was_lost_can_be_repeated(
    linked_world: tuple[LossyLink, World],
) -> None:
    link, world = linked_world
    url = await _link(world)
    async with world.browser() as browser:
        await _lose_the_commit(link, world, browser, url)
        consent = await _request_authorization(world, browser, url, ADA)
    assert consent.status == "connected"
    assert len(await world.sql("SELECT 1 FROM pending_consents")) == 1
    assert (await world.confirm(consent)).status_code == 200
    assert (await world.token()).status_code == 200
    assert world.standin.requests.count("revoke") == 0


async def test_check_15_another_account_replaces_the_one_whose_commit_was_lost(
    linked_world: tuple[LossyLink, World],
) -> None:
    """The first one, which can't be confirmed any more, is revoked at Google."""
    link, world = linked_world
    url = await _link(world)
    async with world.browser() as browser:
        await _lose_the_commit(link, world, browser, url)
        consent = await _request_authorization(world, browser, url, GRACE)
    (grant,) = await world.grants()
    assert grant["account"]["email"] == GRACE

    async def is_sent() -> bool:
        return world.standin.requests.count("revoke") == 1

    await eventually(is_sent, seconds=20)
    assert (await world.confirm(consent)).status_code == 200
    assert (await world.token()).json()["account"]["email"] == GRACE


async def test_check_15_links_of_one_user_keep_separate_pending_consents(
    linked_world: tuple[LossyLink, World],
) -> None:
    _, world = linked_world
    async with world.browser() as browser:
        first = await _request_authorization(world, browser, await _link(world), ADA)
        second = await _request_authorization(world, browser, await _link(world), ADA)
    assert len(await world.sql("SELECT 1 FROM pending_consents")) == 2
    for consent in (first, second):
        assert (await world.confirm(consent)).status_code == 200
