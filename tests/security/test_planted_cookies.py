"""Checks 2 and 15 against an attacker who can plant a cookie for the broker's host.

A neighbour under the same domain can, and an attacker who changes an answer over plain http, but
not under a name that begins with `__Host-`. Chromium treats a name with a byte before that as
another name.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.connections_page import open_connections
from tests.support.probes import audited, exchanges
from tests.support.world import ADA, CLIENT_ID, CLIENT_SECRET, World, open_world

ORIGIN = "https://app.example.com"
LOOK_ALIKES = [b"\x85__Host-%b", b"\xa0__Host-%b", b"\x0c__Host-%b", b"__Host-%b\xa0", b"%b"]


@pytest.fixture
async def on_https(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """A broker whose public listener is behind https, as in production."""
    uri = f"{ORIGIN}/auth/google/callback"
    changes = {"GOOGLE_REDIRECT_URI": uri}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        standin.add_client(CLIENT_ID, CLIENT_SECRET, [uri])
        yield world


def _lookalike_cookie(
    browser: httpx2.AsyncClient, name: str, look_alike: bytes
) -> list[tuple[bytes, bytes]]:
    """Return the header with which a browser sends a cookie with a similar name."""
    value = browser.cookies[f"__Host-{name}"].encode()
    return [(b"cookie", look_alike % name.encode() + b"=" + value)]


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
async def test_check_02_a_planted_cookie_does_not_bind_the_victims_browser(
    on_https: World, look_alike: bytes
) -> None:
    world = on_https
    async with world.browser(ORIGIN) as attacker, world.browser(ORIGIN) as victim:
        to_google = await world.start_consent(attacker, "attacker")
        planted = _lookalike_cookie(attacker, "broker_browser", look_alike)
        callback = world.standin.consent(to_google, ADA)
        assert (await victim.get(callback, headers=planted)).status_code == 400
        assert exchanges(world) == 0
        await audited(world, "consent", "refused:answer_unknown")
        # Nor beside the victim's own cookie.
        await world.start_consent(victim, "victim")
        own = (
            b"cookie",
            f"__Host-broker_browser={victim.cookies['__Host-broker_browser']}".encode(),
        )
        victim.cookies.clear()
        assert (await victim.get(callback, headers=[own, *planted])).status_code == 400
        assert await world.grants("attacker") == []


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
async def test_check_15_a_planted_cookie_does_not_open_a_connections_page(
    on_https: World, look_alike: bytes
) -> None:
    async with on_https.browser(ORIGIN) as attacker, on_https.browser(ORIGIN) as victim:
        assert (await open_connections(on_https, attacker, "attacker")).status_code == 200
        planted = _lookalike_cookie(attacker, "broker_connections", look_alike)
        assert (await victim.get("/connections", headers=planted)).status_code == 403


async def test_check_02_two_browser_cookies_in_one_request_are_both_ignored(world: World) -> None:
    """There can be two only on loopback http, where the name has no `__Host-` prefix."""
    async with world.browser() as attacker, world.browser() as victim:
        to_google = await world.start_consent(attacker, "attacker")
        await world.start_consent(victim, "victim")
        pairs = [f"broker_browser={each.cookies['broker_browser']}" for each in (victim, attacker)]
        victim.cookies.clear()
        callback = world.standin.consent(to_google, ADA)
        for cookie in ("; ".join(pairs), "; ".join(reversed(pairs))):
            assert (await victim.get(callback, headers={"Cookie": cookie})).status_code == 400
        assert exchanges(world) == 0
        assert (await attacker.get(callback)).status_code == 200


async def test_an_invalid_cookie_does_not_block_a_valid_one(
    world: World,
) -> None:
    async with world.browser() as browser:
        to_google = await world.start_consent(browser)
        own = f"broker_browser={browser.cookies['broker_browser']}"
        browser.cookies.clear()
        cookie = f"broker_browser=made-up; {own}; broker_browser={'A' * 43}.{'B' * 43}"
        callback = world.standin.consent(to_google, ADA)
        assert (await browser.get(callback, headers={"Cookie": cookie})).status_code == 200
