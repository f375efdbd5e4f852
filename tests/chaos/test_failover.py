"""A standby without the newest commits takes over: no replica serves a grant revoked then."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import Fleet, User, running_fleet
from tests.chaos.standby import cut_off, promote, streaming_replica, wait_until_caught_up
from tests.support.lossy_link import LossyLink
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

REPLICAS = 3

LIMIT_SECONDS = 5.0
"""Seconds. Without dropping the caches it is a token's lifetime; an idle machine takes one second.
"""


class LinkInThread:
    """A lossy link for tests without an event loop."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._link = LossyLink(port)
        self._listening = self._link.listening()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def port(self) -> int:
        return self._link.port

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listening.__aenter__(), self._loop).result(10)

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._link.cut)

    def stop(self) -> None:
        ending = self._listening.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(ending, self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def link(own_postgres: EmbeddedPostgres) -> Iterator[LinkInThread]:
    """The link between the replicas and the first primary."""
    link = LinkInThread(own_postgres.port)
    link.start()
    yield link
    link.stop()


@contextmanager
def _lagging(
    folder: Path, primary: EmbeddedPostgres, link: LinkInThread, google: GoogleStandin
) -> Iterator[tuple[Fleet, EmbeddedPostgres]]:
    standby = streaming_replica(primary, folder / "standby")
    try:
        url = primary.url("broker").replace(
            f"127.0.0.1:{primary.port}", f"127.0.0.1:{link.port},127.0.0.1:{standby.port}"
        )
        with running_fleet(
            folder,
            primary,
            "broker",
            google,
            replicas=REPLICAS,
            database_url=f"{url}?target_session_attrs=read-write",
        ) as fleet:
            google.behave(token_lifetime=3600)
            yield fleet, standby
    finally:
        standby.stop("immediate")


def _last_served(fleet: Fleet, user: User, replica: int, until: threading.Event) -> float:
    """Return when a replica last returned the user's token."""
    last = 0.0
    while not until.is_set():
        asked = time.monotonic()
        if fleet.token(user, replica).status_code == 200:
            last = asked
        time.sleep(0.01)
    return last


@pytest.mark.parametrize("how", ["refused", "black-holed", "black-holed simultaneously"])
def test_no_replica_serves_a_grant_revoked_after_a_failover_that_lost_commits(
    tmp_path: Path,
    own_postgres: EmbeddedPostgres,
    google: GoogleStandin,
    link: LinkInThread,
    how: str,
) -> None:
    google.reset()
    with _lagging(tmp_path, own_postgres, link, google) as (fleet, standby):
        (old,) = fleet.connect()
        wait_until_caught_up(own_postgres, standby)
        cut_off(standby)
        (lost,) = fleet.connect()
        for user in (old, lost):
            for replica in range(REPLICAS):
                assert fleet.token(user, replica).status_code == 200
        if how == "refused":
            own_postgres.stop("immediate")
        else:
            link.cut()
        if how != "black-holed simultaneously":
            time.sleep(3)
        over = threading.Event()
        with ThreadPoolExecutor() as threads:
            served = {
                (user.id, replica): threads.submit(_last_served, fleet, user, replica, over)
                for user in (old, lost)
                for replica in range(REPLICAS)
            }
            promote(standby)
            promoted = time.monotonic()
            fleet.postgres = standby
            acknowledged = {}
            for user in (lost, old):
                fleet.users.append(user)
                wait_until(
                    "it is revoked",
                    lambda user=user: _is_revoked(fleet, user),  # type: ignore[misc]
                    within=30,
                )
                acknowledged[user.id] = time.monotonic()
            time.sleep(LIMIT_SECONDS + 1)
            over.set()
            late = {
                key: round(last.result() - acknowledged[key[0]], 2) for key, last in served.items()
            }
        # `pytest -s` shows it.
        after = [round(at - promoted, 2) for at in acknowledged.values()]
        sys.stdout.write(f"\n{how}: revoked {after} s after the promotion, served until {late}\n")
        assert max(late.values()) < LIMIT_SECONDS, late
        for process in fleet.replicas:
            assert process.metric("broker_storage_failovers_total") == 1
            assert process.metric("broker_lost_commits_total", kind="consent") == 1
            assert "Traceback" not in process.output


def _is_revoked(fleet: Fleet, user: User) -> bool:
    fleet.users.append(user)
    return fleet.revoke(user).status_code == 204
