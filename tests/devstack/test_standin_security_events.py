"""The stand-in's stream of security events, and events sent by the control API."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio

from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen
from devstack.google_standin import Client, GoogleStandin
from tests.support.security_events import EVENTS_PATH, state
from tests.support.waiting import eventually
from tests.support.world import ADA, World

REVOKED = [("user-1", "reauthorization_required", "google_tokens_revoked", False)]


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[str]:
    """Register the broker's public listener, on a real socket, for one kind of event."""
    listening = bind(Listen("127.0.0.1", 0))
    listeners = Listeners([(world.broker.public, listening)])
    await listeners.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}{EVENTS_PATH}"
    world.standin.state.event_stream = {
        "delivery": {"url": url},
        "events_requested": ["https://schemas.openid.net/secevent/oauth/event-type/tokens-revoked"],
    }
    yield url
    await listeners.stop()
    listening.close()


async def control(world: World, path: str, **body: Any) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=world.standin.base_url) as http:
        answer = await http.post(f"/_control{path}", json=body)
    result: dict[str, Any] = answer.raise_for_status().json()
    return result


async def test_a_removal_on_the_account_page_reaches_the_broker(
    world: World, receiver: str
) -> None:
    await world.connect()
    world.standin.revoke_account(ADA)

    async def is_revoked() -> bool:
        return await state(world) == REVOKED

    await eventually(is_revoked)
    assert [sent["status"] for sent in world.standin.delivered] == [202]


async def test_events_that_the_stream_did_not_request_are_not_sent(
    world: World, receiver: str
) -> None:
    world.standin.state.event_stream["events_requested"] = []
    await world.connect()
    world.standin.revoke_account(ADA)
    assert world.standin.delivered == []


async def test_without_a_stream_nothing_is_sent(world: World) -> None:
    await world.connect()
    world.standin.revoke_account(ADA)
    assert world.standin.delivered == []


async def test_the_control_api_sends_any_event_also_repeatedly(world: World, receiver: str) -> None:
    await world.connect()
    await control(world, "/security-events", event="sessions-revoked", account=ADA, times=2)
    await control(world, "/security-events", event="tokens-revoked", account=ADA, defect="aud")

    async def all_answered() -> bool:
        return sorted(sent["status"] for sent in world.standin.delivered) == [
            202,
            202,
            400,
        ]

    await eventually(all_answered)


async def test_the_event_about_the_brokers_own_revocation_is_harmless(
    world: World, receiver: str
) -> None:
    await world.connect()
    await world.revoke()

    async def is_delivered() -> bool:
        return [sent["status"] for sent in world.standin.delivered] == [202]

    await eventually(is_delivered)
    assert [row[1] for row in await state(world)] == ["revoked"]


def test_stream_and_service_accounts_survive_a_restart(tmp_path: Path) -> None:
    clients = [Client("1-a", "secret", ["http://127.0.0.1/auth/google/callback"])]
    first = GoogleStandin(clients, state_file=tmp_path / "state.json")
    first.add_service_account()
    first.state.event_stream = {"delivery": {"url": "http://127.0.0.1/"}, "events_requested": []}
    first.state.save()
    second = GoogleStandin(clients, state_file=tmp_path / "state.json")
    assert second.state.event_stream == first.state.event_stream
    assert second.state.service_accounts == first.state.service_accounts
