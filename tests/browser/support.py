"""Support for tests in a browser: a broker that listens, and connections of all kinds."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from broker.server.uvicorn_server import Listeners
from devstack.google_standin import Fault, GoogleStandin
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import ADA, CLIENT_ID, CLIENT_SECRET, World, open_world

LONG_EMAIL = (
    "maximiliane.von.und-zu.hohenstein-wittgenstein+calendar"
    "@very-long-subdomain.department.example-corporation.co.kr"
)
_MANY = (
    "openid",
    CALENDAR,
    CALENDAR_READONLY,
    *(
        f"https://www.googleapis.com/auth/{name}"
        for name in (
            "userinfo.email",
            "gmail.readonly",
            "drive.readonly",
            "contacts.readonly",
            "tasks",
            "documents.readonly",
            "an-unknown-scope.that-has.a-very-long-name-and-goes-on.readonly",
        )
    ),
)
_COPY = """
    INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, is_default,
                        sealed_refresh_token, refresh_token_key_id, connected_at, updated_at,
                        last_used_at, last_used_by)
    SELECT gen_random_uuid(), user_id, $2, $3, client_id, $4, $5, false,
           CASE WHEN $5 <> 'revoked' THEN sealed_refresh_token END,
           CASE WHEN $5 <> 'revoked' THEN refresh_token_key_id END,
           connected_at - interval '140 days', updated_at - interval '2 days',
           connected_at - interval '3 days', 'calendar-sync'
    FROM grants WHERE email = $1
"""


@asynccontextmanager
async def serving_world(
    folder: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    *,
    listening: socket.socket,
    origin: str,
) -> AsyncIterator[World]:
    """Run a whole broker, its public listener on that socket; browsers reach it under `origin`."""
    redirect_uri = f"{origin}/auth/google/callback"
    changes = {"GOOGLE_REDIRECT_URI": redirect_uri}
    async with open_world(folder, database_url, standin, clock, changes=changes) as world:
        standin.add_client(CLIENT_ID, CLIENT_SECRET, [redirect_uri])
        listeners = Listeners([(world.broker.public, listening)])
        await listeners.start()
        yield world
        await listeners.stop()


async def break_grant(world: World) -> None:
    """Make Google refuse the grant from now on."""
    world.clock.advance(timedelta(hours=2))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token()).status_code == 409


async def fill_with_connections(world: World) -> None:
    """Create a connection of each status, one with a long name and many scopes."""
    origin = world.settings.redirect_uris[0].rpartition("/auth/")[0]
    async with world.browser(origin) as browser:
        await world.connect(scopes=[CALENDAR, CALENDAR_READONLY], browser=browser)
    for sub, email, scopes, status in (
        ("9001", LONG_EMAIL, _MANY, "reauthorization_required"),
        ("9002", "grace@example.org", (CALENDAR_READONLY,), "pending_confirmation"),
        ("9003", "work@example.org", (CALENDAR_READONLY,), "revoked"),
    ):
        await world.sql(_COPY, ADA, sub, email, list(scopes), status)
