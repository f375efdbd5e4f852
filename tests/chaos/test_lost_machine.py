"""A machine is lost in the middle of a transaction: its connections stay open without a peer."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import Fleet, User, running_fleet
from tests.support.lossy_link import LossyLink, lossy_link
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

_REPORTED_WITHIN = 10.0
"""Seconds within which every request is answered."""

_DEFECT = 60.0
"""Seconds. Without time-outs it takes two hours."""

_WITHIN_A_DELETE = (b"FROM grants WHERE id = $1 FOR UPDATE", b"DELETE FROM access_tokens")
"""Once the server has received these, user, account and grant are locked."""


@contextmanager
def _link(url: str) -> Iterator[tuple[LossyLink, str]]:
    """A lossy link in a thread, for a test that blocks."""
    opened = Future[tuple[LossyLink, str]]()
    done = threading.Event()

    async def carry() -> None:
        async with lossy_link(url) as link:
            opened.set_result(link)
            await asyncio.to_thread(done.wait)

    with ThreadPoolExecutor(1) as pool:
        carrying = pool.submit(asyncio.run, carry())
        try:
            yield opened.result(30)
        finally:
            done.set()
            carrying.result(30)


def _lose_replica(fleet: Fleet, link: LossyLink, user: User) -> None:
    """Lose the second replica's machine in the middle of a revocation."""
    lost = fleet.replicas[1]
    link.cut_after(*_WITHIN_A_DELETE)

    def revoke() -> None:
        with suppress(httpx2.TransportError):
            httpx2.delete(
                f"{lost.internal_url}/v1/users/{user.id}/grants",
                headers=fleet.authorization,
                timeout=60,
                trust_env=False,
            )

    with ThreadPoolExecutor(1) as pool:
        revoking = pool.submit(revoke)
        wait_until("the connection is lost", lambda: link.is_cut, within=30)
        lost.kill()
        revoking.result(60)


def _until(expected: int, *, ask: Callable[[], int]) -> list[int]:
    """Repeat until the status is `expected`. Each answer takes under 10 s and is that or 503."""
    statuses: list[int] = []
    deadline = time.monotonic() + _DEFECT
    while not statuses or statuses[-1] != expected:
        began = time.monotonic()
        statuses.append(ask())
        assert time.monotonic() - began < _REPORTED_WITHIN
        assert statuses[-1] in {503, expected}
        assert time.monotonic() < deadline, statuses
    return statuses


@pytest.mark.parametrize("first", ["revocation", "security event"])
def test_revocations_and_security_events_are_delayed_for_seconds_only(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin, first: str
) -> None:
    google.reset()
    with (
        _link(own_postgres.url("broker")) as (link, address),
        running_fleet(
            tmp_path,
            own_postgres,
            "broker",
            google,
            replicas=2,
            modules={1: ("broker.cli", {"DATABASE_URL": address})},
        ) as fleet,
    ):
        victim, other = fleet.connect(2)
        serving = fleet.replicas[0]
        _lose_replica(fleet, link, victim)
        event = google.security_event(
            "account-disabled", f"{victim.id}@example.com", payload={"reason": "hijacking"}
        )

        def revoke() -> int:
            url = f"{serving.internal_url}/v1/users/{victim.id}/grants"
            return fleet.http.delete(url, headers=fleet.authorization).status_code

        def send_event() -> int:
            answer = fleet.http.post(
                f"{serving.public_url}/auth/google/risc",
                content=event,
                headers={"Content-Type": "application/secevent+jwt"},
            )
            return answer.status_code

        requests = [(revoke, 204), (send_event, 202)]
        for ask, expected in requests if first == "revocation" else requests[::-1]:
            statuses = _until(expected, ask=ask)
            failed = statuses.count(503)
            if ask is revoke:
                labels = {"origin": "caller", "outcome": "failed"}
                assert serving.metric("broker_revocations_total", **labels) == failed
            else:
                labels = {"event": "account-disabled", "outcome": "failed"}
                assert serving.metric("broker_security_events_total", **labels) == failed
            logged = "revocation_failed" if ask is revoke else "security_event_failed"
            assert serving.output.count(f'"event": "{logged}"') >= failed
        assert fleet.token(victim).status_code in {404, 409}
        assert fleet.token(other).status_code == 200
        assert serving.readiness().json()["status"] == "ready"
