"""Support for tests of the connections page."""

import re
from datetime import timedelta
from html import unescape

import httpx2

from devstack.google_standin import Fault
from tests.support.world import ADA, World


async def grant_id(world: World, email: str = ADA, user_id: str = "user-1") -> str:
    """Return the id of a user's grant."""
    (row,) = await world.sql(
        "SELECT id::text FROM grants WHERE email = $1 AND user_id = $2", email, user_id
    )
    return str(row["id"])


async def break_grant(world: World) -> None:
    """Make Google refuse the grant from now on."""
    world.clock.advance(timedelta(hours=2))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token()).status_code == 409


def text_of(page: httpx2.Response) -> str:
    """Return a page's text without its markup."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page.text)))
