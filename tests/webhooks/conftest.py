"""A receiver, and senders: in a whole broker, or alone and driven by hand."""

import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from broker.audit.trail import AuditTrail
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from broker.webhooks.delivery import Delivery, webhook_http_client
from broker.webhooks.outbox import WebhookOutbox
from broker.webhooks.sender import WebhookSender
from broker.webhooks.signing import MessageSigner
from devstack.google_standin import GoogleStandin
from tests.support.audit import KEYS
from tests.support.clock import ManualClock
from tests.support.world import World, open_world
from tests.webhooks.receiver import Receiver


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


SECRET = new_secret()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    opened = Receiver()
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
def webhook_settings(receiver: Receiver) -> dict[str, str]:
    """The settings of a broker that sends to the receiver."""
    return {"BROKER_WEBHOOK_URL": receiver.url, "BROKER_WEBHOOK_SECRET": SECRET}


@pytest.fixture
async def world(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    webhook_settings: dict[str, str],
) -> AsyncIterator[World]:
    """The whole broker, which sends to the receiver."""
    async with open_world(
        tmp_path, database_url, standin, clock, changes=webhook_settings
    ) as opened:
        yield opened


@dataclass
class Replica:
    """A sender without its periodic job."""

    database: Database
    outbox: WebhookOutbox
    sender: WebhookSender
    delivery: Delivery
    signer: MessageSigner
    audit: AuditTrail
    metrics: Metrics

    async def round(self) -> None:
        """Send due events, and wait until they are settled."""
        await self.sender.send_due()
        await self.sender.aclose()

    def counted(self, outcome: str, kind: str = "grant.connected") -> float:
        labels = {"type": kind, "outcome": outcome}
        return self.metrics.registry.get_sample_value("broker_webhooks_total", labels) or 0

    def waiting(self) -> float | None:
        return self.metrics.registry.get_sample_value("broker_webhooks_waiting")

    async def sql(self, query: str, *args: object) -> list[asyncpg.Record]:
        return await self.database.fetch(query, *args)

    async def make_grant(self, at: datetime, *, status: str = "active") -> UUID:
        """Insert a grant, as any writer does; the triggers add the event."""
        grant_id = uuid4()
        await self.database.execute(
            "INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, "
            "connected_at, updated_at) VALUES ($1, $2, '110', 'a@example.com', 'c', '{s}', "
            "$4, $3, $3)",
            grant_id,
            str(grant_id),
            at,
            status,
        )
        return grant_id

    async def set_status(self, grant_id: UUID, status: str, at: datetime) -> None:
        await self.database.execute(
            "UPDATE grants SET status = $2, version = version + 1, updated_at = $3 WHERE id = $1",
            grant_id,
            status,
            at,
        )


@pytest.fixture
async def replicas(
    database_url: str, clock: ManualClock, receiver: Receiver
) -> AsyncIterator[list[Replica]]:
    """Two replicas on one database."""
    opened = [await _open(database_url, clock, receiver) for _ in range(2)]
    yield [replica for replica, _ in opened]
    for replica, http in opened:
        await replica.sender.aclose()
        await http.aclose()
        await replica.database.close()


@pytest.fixture
def replica(replicas: list[Replica]) -> Replica:
    """One replica."""
    return replicas[0]


async def _open(database_url: str, clock: ManualClock, receiver: Receiver) -> tuple[Replica, Any]:
    database = Database(Secret(database_url))
    await database.open()
    http = webhook_http_client()
    metrics = Metrics()
    outbox = WebhookOutbox(database, clock)
    audit = AuditTrail(database, clock, metrics, KEYS)
    delivery = Delivery(receiver.url, http)
    signer = MessageSigner([Secret(SECRET)])
    sender = WebhookSender(
        outbox=outbox, delivery=delivery, signer=signer, audit=audit, metrics=metrics, clock=clock
    )
    return Replica(database, outbox, sender, delivery, signer, audit, metrics), http
