"""The ops listener of a whole broker, with its parts up and down."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from devstack.google_standin import Fault
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.support.clock import ManualClock
from tests.support.openbao import VaultPlace
from tests.support.outages import database_unavailable
from tests.support.world import ADA, CLIENT_ID, CLIENT_SECRET, World, open_world

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def _readiness(world: World) -> tuple[int, Any]:
    answer = await world.ops.get("/readyz")
    return answer.status_code, answer.json()


def _down(body: Any) -> list[str]:
    return [name for name, part in body["parts"].items() if part["status"] == "down"]


async def _until(world: World, holds: Callable[[Any], bool]) -> tuple[int, Any]:
    """Readiness, once a background job has noticed the change."""
    async with asyncio.timeout(10):
        while not holds((result := await _readiness(world))[1]):  # noqa: ASYNC110  (no event)
            await asyncio.sleep(0.05)
    return result


# ---- /livez


async def test_liveness_is_plain_text(world: World) -> None:
    answer = await world.ops.get("/livez")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert answer.headers["cache-control"] == "no-store"


async def test_liveness_needs_neither_postgresql_nor_google(
    world: World, postgres: EmbeddedPostgres
) -> None:
    async with database_unavailable(world, postgres):
        requests = len(world.standin.requests)
        async with asyncio.timeout(10):
            assert (await world.ops.get("/livez")).status_code == 200
        assert len(world.standin.requests) == requests


# ---- /readyz


async def test_readiness_lists_each_part(world: World) -> None:
    status, body = await _readiness(world)
    assert (status, body["status"]) == (200, "ready")
    assert set(body["parts"]) == {
        "database",
        "secret_source",
        "google",
        "callers_file",
        "issuers",
        "revocations",
    }
    assert _down(body) == []


async def test_readiness_must_not_be_cached(world: World) -> None:
    assert (await world.ops.get("/readyz")).headers["cache-control"] == "no-store"


async def test_an_outage_of_google_degrades_the_replica(
    tmp_path_factory: pytest.TempPathFactory, world: World
) -> None:
    folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, world.clock) as other:
        world.standin.faults.always("discovery", Fault.http(503))
        status, body = await _readiness(other)
    assert (status, body["status"], _down(body)) == (200, "degraded", ["google"])


async def test_an_invalid_callers_file_degrades_the_replica_and_is_explained(world: World) -> None:
    world.callers_file.write_text("callers:\n  a:\n    cann: []\n")
    status, body = await _until(world, lambda body: body["status"] != "ready")
    assert (status, body["status"], _down(body)) == (200, "degraded", ["callers_file"])
    assert "cann" in body["parts"]["callers_file"]["reason"]


async def test_with_the_callers_file_fixed_the_replica_is_ready_again(world: World) -> None:
    good = world.callers_file.read_text()
    world.callers_file.write_text("callers: [")
    await _until(world, lambda body: body["status"] == "degraded")
    world.callers_file.write_text(good)
    await _until(world, lambda body: body["status"] == "ready")


async def test_without_database_and_cached_tokens_the_replica_is_unavailable(
    world: World, postgres: EmbeddedPostgres
) -> None:
    async with database_unavailable(world, postgres):
        status, body = await _readiness(world)
        assert (status, body["status"], _down(body)) == (503, "unavailable", ["database"])
    assert (await _readiness(world))[0] == 200


async def test_without_database_but_with_cached_tokens_the_replica_serves(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    await world.token()
    async with database_unavailable(world, postgres):
        status, body = await _readiness(world)
        assert (status, body["status"], _down(body)) == (200, "degraded", ["database"])
        assert (await world.token()).status_code == 200


async def test_no_reason_shows_an_address_or_a_password(
    world: World, postgres: EmbeddedPostgres
) -> None:
    world.standin.faults.always("discovery", Fault.drop())
    async with database_unavailable(world, postgres):
        shown = (await world.ops.get("/readyz")).text
    for hidden in (postgres.password, "127.0.0.1", "postgresql://", CLIENT_SECRET, world.key):
        assert hidden not in shown


async def test_a_draining_replica_is_unavailable(world: World) -> None:
    world.broker.health.drain()
    assert (await _readiness(world))[0] == 503


async def test_a_sealed_vault_degrades_the_replica(
    world: World,
    own_openbao: OpenBao,
    clock: ManualClock,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = VaultPlace.new(own_openbao)
    place.put(CLIENT_SECRET, CLIENT_ID)
    token = place.create_token().reveal()
    changes = {
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": own_openbao.address,
        "VAULT_TOKEN": token,
        "VAULT_KV_PATH": place.path,
    }
    folder, url = tmp_path_factory.mktemp("other"), world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, clock, changes=changes) as other:
        assert (await _readiness(other))[1]["status"] == "ready"
        await asyncio.to_thread(own_openbao.seal)
        status, body = await _readiness(other)
        assert (status, body["status"], _down(body)) == (200, "degraded", ["secret_source"])
        assert token not in str(body)
        assert (await other.connect()).response.status_code == 200


# ---- /metrics


async def test_metrics_are_plain_text_by_default(world: World) -> None:
    answer = await world.ops.get("/metrics", headers={"Accept": "*/*"})
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    assert "broker_callers_file_up" in {family.name for family in parse_text(answer.text)}


async def test_openmetrics_is_served_on_request(world: World) -> None:
    answer = await world.ops.get("/metrics", headers={"Accept": f"{OPENMETRICS},text/plain;q=0.5"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.")
    assert answer.text.endswith("# EOF\n")
    families = parse_openmetrics(answer.text)  # type: ignore[no-untyped-call]
    assert "broker_callers_file_up" in {family.name for family in families}


async def test_consents_and_token_requests_are_counted(world: World) -> None:
    await world.connect()
    await world.token()
    assert await world.metric("broker_consents_total", outcome="connected") == 1
    caller = {"caller": "calendar-sync", "outcome": "ok"}
    assert await world.metric("broker_token_requests_total", **caller) == 1
    assert await world.metric("broker_google_requests_total", endpoint="token", outcome="ok") >= 1
    assert await world.metric("broker_secret_source_up", source="env") == 1
    assert await world.metric("broker_callers_file_up") == 1


async def test_requests_are_measured_by_listener_and_route(world: World) -> None:
    await world.connect()
    await world.token()
    measured = {
        tuple(sample.labels[name] for name in ("listener", "route", "method", "status"))
        for family in parse_text((await world.ops.get("/metrics")).text)
        for sample in family.samples
        if sample.name == "broker_http_request_duration_seconds_count" and sample.value
    }
    assert measured == {
        ("internal", "/v1/users/{user_id}/connect-links", "POST", "201"),
        ("public", "/auth/google/authorize/{user_id}", "GET", "303"),
        ("public", "/auth/google/callback", "GET", "200"),
        ("internal", "/v1/users/{user_id}/token", "GET", "200"),
    }


async def test_no_metric_shows_a_user_an_account_or_a_secret(world: World) -> None:
    await world.connect("user-hunter2")
    await world.token("user-hunter2")
    await world.token("user-hunter2", account=ADA)
    await world.token("someone-hunter2")
    await world.internal.get("/nothing/hunter2")
    await world.revoke("user-hunter2")
    text = (await world.ops.get("/metrics")).text
    account = world.standin.account(ADA)
    for hidden in ("hunter2", ADA, account.sub, world.key, CLIENT_SECRET):
        assert hidden not in text
    assert not re.search(r"[\w.]+@[\w.]+", text)


# ---- other paths and methods


@pytest.mark.parametrize("path", ["/", "/metrics/", "/v1/users/1/token", "/auth/google/callback"])
async def test_any_other_path_is_not_found(world: World, path: str) -> None:
    answer = await world.ops.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
async def test_no_route_accepts_a_change(world: World, path: str) -> None:
    answer: httpx2.Response = await world.ops.post(path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "accept",
    ["text/plain;version=x", "application/openmetrics-text;version=1.x", "text/plain;version="],
)
async def test_a_malformed_accept_header_gets_plain_text(world: World, accept: str) -> None:
    answer = await world.ops.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert b"broker_token_requests_total" in answer.content
