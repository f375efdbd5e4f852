"""What an attacker could read: stored rows, log records, and secrets in any encoding."""

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
    """Return a URL's query parameters."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


@asynccontextmanager
async def consent_at_google(
    world: World, user_id: str = "user-1", account: str = ADA, **body: Any
) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """Allow a consent at Google; return the browser and the address of its callback."""
    async with world.browser() as browser:
        yield (
            browser,
            world.standin.consent(await world.start_consent(browser, user_id, **body), account),
        )


def exchanges(world: World) -> int:
    """Return the number of code exchanges at Google."""
    return world.standin.requests.count("token", grant_type="authorization_code")


async def everything_stored(world: World) -> str:
    """Return all rows of all tables as text."""
    tables = await world.sql(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    parts = []
    for table in tables:
        rows = await world.sql(f"SELECT t::text FROM {table[0]} t")
        parts += [str(row[0]) for row in rows]
    return "\n".join(parts)


async def audited(world: World, action: str, outcome: str, *, count: int = 1) -> list[Any]:
    """Return the records of one kind once there are `count`; they are written within a second."""
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


def encodings(secret: str) -> Iterable[str]:
    """Yield encodings of a secret: plain, base64 at any offset, hex, quoted."""
    plain = secret.encode()
    yield secret
    yield secret[::-1]
    yield plain.hex()
    yield plain.hex().upper()
    yield quote(secret, safe="")
    yield quote(quote(secret, safe=""), safe="")
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain).decode()
        # The characters at the edges depend on the neighbours.
        core = encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
        yield core
        yield core.replace("+", "-").replace("/", "_")


def assert_hidden(secret: str, *places: str) -> None:
    """Fail if one of these texts contains the secret in any encoding."""
    for place in places:
        for disguise in encodings(secret):
            assert disguise not in place, "a secret has come out"


def own_log(caplog: pytest.LogCaptureFixture) -> str:
    """Return the broker's own log records; the test's HTTP client logs every request."""
    own = (record for record in caplog.records if record.name.split(".")[0] == "broker")
    return "\n".join(map(JsonFormatter().format, own))
