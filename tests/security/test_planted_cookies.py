"""Checks 2 and 15 against who can have a browser keep a cookie for the broker's host.

A neighbour under the same domain can, and whoever writes into an answer over plain http; but not
under a name that begins with `__Host-`. Chromium takes
one with a byte before that for another name.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from devstack.google_standin import GoogleStandin
from tests.security.probes import audited, departed, exchanges
from tests.support.clock import ManualClock
from tests.support.visits import enter
from tests.support.world import ADA, CLIENT_ID, CLIENT_SECRET, World, open_world

ORIGIN = "https://app.example.com"
LOOK_ALIKES = [b"\x85__Host-%b", b"\xa0__Host-%b", b"\x0c__Host-%b", b"__Host-%b\xa0", b"%b"]


@pytest.fixture
async def on_https(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """A broker whose public side is https, as in production."""
    uri = f"{ORIGIN}/auth/google/callback"
    changes = {"GOOGLE_REDIRECT_URI": uri}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        standin.add_client(CLIENT_ID, CLIENT_SECRET, [uri])
        yield world


def _planted(
    browser: httpx2.AsyncClient, name: str, look_alike: bytes
) -> list[tuple[bytes, bytes]]:
    """The header with which a browser would send what it keeps under a look-alike name."""
    value = browser.cookies[f"__Host-{name}"].encode()
    return [(b"cookie", look_alike % name.encode() + b"=" + value)]


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
async def test_check_02_a_planted_cookie_does_not_make_a_victim_the_browser_that_began(
    on_https: World, look_alike: bytes
) -> None:
    world = on_https
    async with world.browser(ORIGIN) as attacker, world.browser(ORIGIN) as victim:
        to_google = await departed(world, attacker, "attacker")
        planted = _planted(attacker, "broker_browser", look_alike)
        callback = world.standin.consent(to_google, ADA)
        assert (await victim.get(callback, headers=planted)).status_code == 400
        assert exchanges(world) == 0
        await audited(world, "consent", "refused:answer_unknown")
        # Nor beside a cookie of the victim's own.
        await departed(world, victim, "victim")
        own = (
            b"cookie",
            f"__Host-broker_browser={victim.cookies['__Host-broker_browser']}".encode(),
        )
        victim.cookies.clear()
        assert (await victim.get(callback, headers=[own, *planted])).status_code == 400
        assert await world.grants("attacker") == []


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
async def test_check_15_a_planted_cookie_opens_nobodys_page_of_connections(
    on_https: World, look_alike: bytes
) -> None:
    async with on_https.browser(ORIGIN) as attacker, on_https.browser(ORIGIN) as victim:
        assert (await enter(on_https, attacker, "attacker")).status_code == 200
        planted = _planted(attacker, "broker_connections", look_alike)
        assert (await victim.get("/connections", headers=planted)).status_code == 403


async def test_check_02_of_two_browsers_cookies_at_once_neither_counts(world: World) -> None:
    """Only on loopback http, where the name has no such prefix, can there be two."""
    async with world.browser() as attacker, world.browser() as victim:
        to_google = await departed(world, attacker, "attacker")
        await departed(world, victim, "victim")
        pairs = [f"broker_browser={each.cookies['broker_browser']}" for each in (victim, attacker)]
        victim.cookies.clear()
        callback = world.standin.consent(to_google, ADA)
        for cookie in ("; ".join(pairs), "; ".join(reversed(pairs))):
            assert (await victim.get(callback, headers={"Cookie": cookie})).status_code == 400
        assert exchanges(world) == 0
        assert (await attacker.get(callback)).status_code == 200


async def test_a_cookie_that_is_nobodys_does_not_stand_in_the_way_of_a_persons_own(
    world: World,
) -> None:
    async with world.browser() as browser:
        to_google = await departed(world, browser)
        own = f"broker_browser={browser.cookies['broker_browser']}"
        browser.cookies.clear()
        cookie = f"broker_browser=made-up; {own}; broker_browser={'A' * 43}.{'B' * 43}"
        callback = world.standin.consent(to_google, ADA)
        assert (await browser.get(callback, headers={"Cookie": cookie})).status_code == 200
