"""A standby without the newest commits is promoted: every replica drops its cache, lost commits are
reported, and lost revocations are restored.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.database.schema import migrate
from broker.doctor.database_check import check_failovers, fetch_database_facts
from broker.doctor.findings import Verdict
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.standby import cut_off, either, promote, streaming_replica, wait_until_caught_up
from tests.support.clock import ManualClock
from tests.support.postgres import UNSAFE_BUT_FAST, new_postgres_folder
from tests.support.scopes import CALENDAR
from tests.support.security_events import send_event
from tests.support.waiting import eventually
from tests.support.world import World, open_world


@dataclass
class Cluster:
    """A primary and an asynchronous standby, with two replicas of the broker that know both."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres
    replicas: Sequence[World]

    async def connect(self, *users: str) -> None:
        for user in users:
            self.replicas[0].standin.add_account(f"{user}@example.com")
            connected = await self.replicas[0].connect(user, f"{user}@example.com")
            assert connected.response.status_code == 200
            for replica in self.replicas:
                assert (await replica.token(user)).status_code == 200

    async def lag(self) -> None:
        """Let the standby miss all later commits."""
        await asyncio.to_thread(wait_until_caught_up, self.primary, self.standby)
        await asyncio.to_thread(cut_off, self.standby)

    async def fail_over(self) -> None:
        await asyncio.to_thread(self.primary.stop, "immediate")
        await asyncio.to_thread(promote, self.standby)

    async def revoke(self, user: str) -> None:
        async def is_acknowledged() -> bool:
            return (await self.replicas[0].revoke(user)).status_code == 204

        await eventually(is_acknowledged)

    async def status(self, user: str) -> str:
        query = f"SELECT status FROM grants WHERE user_id = '{user}'"
        return await asyncio.to_thread(self.standby.execute, query, "broker")


@pytest.fixture
def servers(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    folder = new_postgres_folder(tmp_path_factory)
    with EmbeddedPostgres(folder, options=UNSAFE_BUT_FAST) as primary:
        primary.create_database("broker")
        asyncio.run(migrate(Secret(primary.url("broker"))))
        standby = streaming_replica(primary, tmp_path / "standby")
        yield primary, standby
        standby.stop("immediate")


@pytest.fixture
async def cluster(
    servers: tuple[EmbeddedPostgres, EmbeddedPostgres],
    tmp_path_factory: pytest.TempPathFactory,
    standin: GoogleStandin,
    clock: ManualClock,
) -> AsyncIterator[Cluster]:
    primary, standby = servers
    url = either(primary, standby, "broker")
    one, two = (tmp_path_factory.mktemp("replica") for _ in range(2))
    async with (
        open_world(one, url, standin, clock) as first,
        open_world(two, url, standin, clock) as second,
    ):
        yield Cluster(primary, standby, [first, second])


async def _all_replicas_answer(cluster: Cluster, user: str, status: int, code: str) -> None:
    """Wait until all replicas answer so."""

    async def so() -> bool:
        answers = [await replica.token(user) for replica in cluster.replicas]
        return all((a.status_code, a.json().get("code")) == (status, code) for a in answers)

    await eventually(so, seconds=5)


async def test_nothing_revoked_is_served_after_a_failover_that_lost_commits(
    cluster: Cluster, clock: ManualClock
) -> None:
    await cluster.connect("bob", "mallory")
    await cluster.lag()
    await cluster.connect("alice")
    for user in ("bob", "mallory"):
        # A second version, whose number the new primary will use for another change.
        await cluster.replicas[0].connect(user, f"{user}@example.com", scopes=[CALENDAR])
        for replica in cluster.replicas:
            assert (await replica.token(user)).status_code == 200
    await cluster.fail_over()
    await cluster.revoke("alice")
    await cluster.revoke("bob")
    clock.advance(timedelta(seconds=5))
    mallory, hijacking = "mallory@example.com", {"reason": "hijacking"}
    await send_event(cluster.replicas[0], "account-disabled", mallory, payload=hijacking)
    await _all_replicas_answer(cluster, "alice", 404, "grant_not_found")
    await _all_replicas_answer(cluster, "bob", 404, "grant_not_found")
    await _all_replicas_answer(cluster, "mallory", 409, "reauthorization_required")


async def _doctors_warning(server: EmbeddedPostgres) -> str:
    facts = await fetch_database_facts(Secret(server.url("broker")), SystemClock())
    (finding,) = check_failovers(facts)
    assert finding.verdict is Verdict.WARNING
    return finding.what


async def test_lost_commits_are_reported_and_lost_revocations_restored(
    cluster: Cluster,
) -> None:
    await cluster.connect("bob", "carol")
    assert "only asynchronous standbys" in await _doctors_warning(cluster.primary)
    await cluster.lag()
    await cluster.connect("alice")
    await cluster.replicas[0].connect("bob", "bob@example.com", scopes=[CALENDAR])
    assert (await cluster.replicas[0].revoke("carol")).status_code == 204
    await cluster.fail_over()

    async def is_revoked_again() -> bool:
        return await cluster.status("carol") == "revoked"

    await eventually(is_revoked_again)
    await _all_replicas_answer(cluster, "carol", 404, "grant_not_found")

    async def reported() -> set[tuple[str, str]]:
        rows = await cluster.replicas[0].sql(
            "SELECT user_id, outcome FROM audit_events WHERE action = 'commit_lost'"
        )
        return {(row["user_id"], row["outcome"]) for row in rows}

    async def all_are_reported() -> bool:
        # A replica that knew only the version of carol's revocation may report that as well.
        return await reported() - {("carol", "change")} == {
            ("alice", "consent"),
            ("bob", "change"),
            ("carol", "revocation:restored"),
        }

    await eventually(all_are_reported)
    for replica in cluster.replicas:
        assert await replica.metric("broker_storage_failovers_total") == 1
        assert await replica.metric("broker_lost_commits_total", kind="consent") == 1
    revoked = "broker_revocations_total"
    revocations = [
        await replica.metric(revoked, origin="failover", outcome="revoked")
        for replica in cluster.replicas
    ]
    assert sum(revocations) == 1
    # The remaining grant of bob works after a refresh.
    assert (await cluster.replicas[1].token("bob")).status_code == 200


async def test_a_lagging_read_replica_without_a_grant_is_rejected(
    servers: tuple[EmbeddedPostgres, EmbeddedPostgres],
    tmp_path: Path,
    standin: GoogleStandin,
    clock: ManualClock,
) -> None:
    primary, standby = servers
    reading = {"DATABASE_REPLICA_URL": standby.url("broker")}
    async with open_world(
        tmp_path, primary.url("broker"), standin, clock, changes=reading
    ) as world:
        for user in ("bob", "dora", "erin"):
            standin.add_account(f"{user}@example.com")
        await world.connect("bob", "bob@example.com")
        await world.connect("dora", "dora@example.com")
        assert (await world.revoke("bob")).status_code == 204
        await world.until_revocations_are_sent()
        await asyncio.to_thread(wait_until_caught_up, primary, standby)
        await asyncio.to_thread(cut_off, standby)
        await world.connect("bob", "bob@example.com")
        await world.connect("erin", "erin@example.com")
        await asyncio.to_thread(primary.stop, "immediate")
        for user in ("bob", "erin"):
            answer = await world.token(user)
            assert (answer.status_code, answer.json().get("code")) == (503, "storage_unavailable")
        answer = await world.token("nobody")
        assert (answer.status_code, answer.json()["code"]) == (404, "grant_not_found")
        asked = [{"user_id": user} for user in ("bob", "dora", "erin", "nobody")]
        batch = await world.internal.post(
            "/v1/tokens", json={"requests": asked}, headers=world.authorization
        )
        codes = [item.get("error", {}).get("code") for item in batch.json()["results"]]
        assert codes == ["storage_unavailable", None, "storage_unavailable", "grant_not_found"]
