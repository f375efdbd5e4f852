"""Sends security events to the broker, as Google and as attackers would."""

from typing import Any

import httpx2

from tests.support.world import ADA, World

EVENTS_PATH = "/auth/google/risc"
MEDIA_TYPE = "application/secevent+jwt"

REVOCATION_EVENTS = ("tokens-revoked", "token-revoked")


async def post(world: World, token: str | bytes, **headers: str) -> httpx2.Response:
    """Post a token; return the response."""
    return await world.public.post(
        EVENTS_PATH, content=token, headers={"Content-Type": MEDIA_TYPE, **headers}
    )


async def send_event(world: World, event: str, account: str | None = ADA, **changes: Any) -> str:
    """Send an event as Google does; return the token, which the broker has accepted."""
    token = world.standin.security_event(event, account, **changes)
    answer = await post(world, token)
    assert answer.status_code == 202, answer.text
    assert answer.content == b""
    return token


async def state(world: World) -> list[tuple[str, str, str | None, bool]]:
    """Return each grant's user, status and reason, and whether its refresh token is stored."""
    rows = await world.sql(
        "SELECT user_id, status, reason, sealed_refresh_token IS NOT NULL FROM grants "
        "ORDER BY user_id"
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def everything(world: World) -> list[list[tuple[Any, ...]]]:
    """Return every row that an event could change."""
    tables = ("grants", "access_tokens", "security_event_tokens", "account_states")
    return [
        [tuple(row) for row in await world.sql(f"SELECT * FROM {table} ORDER BY 1")]
        for table in tables
    ]


def refresh_token(world: World, number: int = -1) -> str:
    """Return a refresh token that Google has issued."""
    return world.standin.issued.refresh_tokens[number]


def seconds(world: World) -> int:
    """Return the time of the broker's and Google's shared clock, in seconds."""
    return int(world.clock.epoch())
