"""What the checks share: looking at everything that an attacker could look at."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2
import pytest

from broker.telemetry.logs import JsonFormatter
from tests.support.world import ADA, World


def query_of(url: str) -> dict[str, str]:
    """A URL's parameters."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


async def departed(
    world: World, browser: httpx2.AsyncClient, user_id: str = "user-1", **body: Any
) -> str:
    """Send a browser on its way to Google; gives the authorization URL."""
    link = (await world.create_link(user_id, **body)).raise_for_status().json()
    answer = await browser.get(link["url"])
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


@asynccontextmanager
async def about_to_return(
    world: World, user_id: str = "user-1", account: str = ADA, **body: Any
) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """A browser at Google, which has just allowed; and the address that it will come back to."""
    async with world.browser() as browser:
        yield (
            browser,
            world.standin.consent(await departed(world, browser, user_id, **body), account),
        )


def exchanges(world: World) -> int:
    """How many codes were put to Google."""
    return world.standin.requests.count("token", grant_type="authorization_code")


async def everything_stored(world: World) -> str:
    """All rows of all tables as text."""
    tables = await world.sql(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    parts = []
    for table in tables:
        rows = await world.sql(f"SELECT t::text FROM {table[0]} t")
        parts += [str(row[0]) for row in rows]
    return "\n".join(parts)


async def audited(world: World, action: str, outcome: str, *, count: int = 1) -> list[Any]:
    """The records of one kind, once there are so many; they are written within a second."""
    async with asyncio.timeout(10):
        while True:
            found = await world.sql(
                "SELECT * FROM audit_events WHERE action = $1 AND outcome = $2 ORDER BY id",
                action,
                outcome,
            )
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


def disguises(secret: str) -> Iterable[str]:
    """A secret as it may be written down: plainly, in base64 at any offset, in hex, quoted."""
    plain = secret.encode()
    yield secret
    yield secret[::-1]
    yield plain.hex()
    yield plain.hex().upper()
    yield quote(secret, safe="")
    yield quote(quote(secret, safe=""), safe="")
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain).decode()
        # What stands at the edges depends on the neighbours.
        core = encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def assert_hidden(secret: str, *places: str) -> None:
    """The secret stands in none of these texts, under no disguise."""
    for place in places:
        for disguise in disguises(secret):
            assert disguise not in place, "a secret has come out"


def own_log(caplog: pytest.LogCaptureFixture) -> str:
    """What the broker itself would have printed; the test's own browser logs all that it does."""
    own = (record for record in caplog.records if record.name.split(".")[0] == "broker")
    return "\n".join(map(JsonFormatter().format, own))
