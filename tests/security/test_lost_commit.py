"""Check 15 on a bad day: the connection to PostgreSQL is lost while a consent is put aside."""

from urllib.parse import parse_qs, urlsplit

import httpx2

from tests.support.lossy_link import LossyLink
from tests.support.waiting import eventually
from tests.support.world import ADA, RETURN_TO, Trip, World

GRACE = "grace@example.com"


async def _goes(world: World, browser: httpx2.AsyncClient, url: str, account: str) -> Trip:
    to_google = await browser.get(url)
    assert to_google.status_code == 303, to_google.text
    callback = world.standin.consent(to_google.headers["location"], account)
    answer = await browser.get(callback)
    assert answer.status_code == 303, answer.text
    (link_id,) = parse_qs(urlsplit(answer.headers["location"]).query)["link_id"]
    return Trip(answer, link_id)


async def _lose_the_commit(
    link: LossyLink, world: World, browser: httpx2.AsyncClient, url: str
) -> None:
    """A trip to Google whose consent is stored, as nobody but PostgreSQL knows."""
    link.lose_answer_to(b"INSERT INTO pending_consents", b"COMMIT")
    trip = await _goes(world, browser, url, ADA)
    assert link.has_lost_answer
    assert trip.status == "failed"

    async def is_stored() -> bool:
        return len(await world.sql("SELECT 1 FROM pending_consents")) == 1

    await eventually(is_stored, seconds=10)


async def _link(world: World) -> str:
    answer = await world.create_link("user-1", confirm=True, return_to=RETURN_TO)
    return str(answer.raise_for_status().json()["url"])


async def test_check_15_a_consent_whose_commit_was_lost_can_be_given_again(
    linked_world: tuple[LossyLink, World],
) -> None:
    link, world = linked_world
    url = await _link(world)
    async with world.browser() as browser:
        await _lose_the_commit(link, world, browser, url)
        trip = await _goes(world, browser, url, ADA)
    assert trip.status == "connected"
    assert len(await world.sql("SELECT 1 FROM pending_consents")) == 1
    assert (await world.confirm(trip)).status_code == 200
    assert (await world.token()).status_code == 200
    assert world.standin.requests.count("revoke") == 0


async def test_check_15_another_account_takes_the_place_of_the_one_whose_commit_was_lost(
    linked_world: tuple[LossyLink, World],
) -> None:
    """And Google is told about the first one, which nobody can confirm any more."""
    link, world = linked_world
    url = await _link(world)
    async with world.browser() as browser:
        await _lose_the_commit(link, world, browser, url)
        trip = await _goes(world, browser, url, GRACE)
    (grant,) = await world.grants()
    assert grant["account"]["email"] == GRACE

    async def is_told() -> bool:
        return world.standin.requests.count("revoke") == 1

    await eventually(is_told, seconds=20)
    assert (await world.confirm(trip)).status_code == 200
    assert (await world.token()).json()["account"]["email"] == GRACE


async def test_check_15_links_of_one_user_do_not_displace_one_anothers_consents(
    linked_world: tuple[LossyLink, World],
) -> None:
    _, world = linked_world
    async with world.browser() as browser:
        first = await _goes(world, browser, await _link(world), ADA)
        second = await _goes(world, browser, await _link(world), ADA)
    assert len(await world.sql("SELECT 1 FROM pending_consents")) == 2
    for trip in (first, second):
        assert (await world.confirm(trip)).status_code == 200
