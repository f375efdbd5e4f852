"""Replicas that die, restart, get no notifications or have skewed clocks; and bursts of callers."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import pytest

from broker.tokens.refresh.lease_waits import LEASE
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet, User, running_fleet, start_all
from tests.chaos.load import ask_concurrently, load_on
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

LONG = 600
"""Seconds. Such a token does not expire during a test."""


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    shared_database: str,
    google: GoogleStandin,
) -> Iterator[Fleet]:
    """Four replicas."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    with running_fleet(folder, postgres, shared_database, google, replicas=4) as fleet:
        fleet.connect(6)
        yield fleet


@pytest.fixture
def fleet(four: Fleet) -> Iterator[Fleet]:
    """The four replicas, all running; Google has no fault before and after the test."""
    four.google.behave(token_lifetime=TOKEN_LIFETIME)
    start_all([replica for replica in four.replicas if replica.pid is None])
    yield four
    four.google.faults.clear()
    four.google.holds.release_all()


def test_check_33_a_thousand_callers_at_the_moment_of_expiry_make_one_refresh(fleet: Fleet) -> None:
    (user,) = fleet.connect()
    for replica in range(4):
        assert fleet.token(user, replica, min_ttl=0).status_code == 200
    fleet.let_expire([user])
    fleet.google.behave(token_lifetime=LONG)
    before = fleet.refreshes()
    answers = asyncio.run(ask_concurrently(fleet, user, 1000))
    assert {answer.status for answer in answers} == {200}
    assert not [answer.fault for answer in answers if answer.fault]
    assert fleet.refreshes() == before + 1


def test_check_34_a_replica_killed_while_it_refreshes_is_replaced_within_the_lease(
    fleet: Fleet,
) -> None:
    (user,) = fleet.connect()
    fleet.let_expire([user])
    fleet.google.faults.next("token", Fault.hold("dying"), account=user.sub)
    doomed = fleet.replicas[3]
    fleet.users.remove(user)
    with load_on(fleet) as record, ThreadPoolExecutor() as threads:
        asking = threads.submit(fleet.token, user, 3, min_ttl=0)
        fleet.google.holds.wait_until_held("dying")
        doomed.kill()
        killed = time.monotonic()
        assert asking.exception() is not None
        answer = fleet.token(user, 0, min_ttl=0)
        assert answer.status_code == 200, answer.text
        assert time.monotonic() - killed < LEASE.total_seconds() + 1
        doomed.start()
    record.assert_sound(broken=True)
    fleet.users.append(user)
    fleet.assert_recovered()


def test_replicas_are_killed_one_after_another(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        for replica in fleet.replicas:
            replica.kill()
            replica.start()
        fleet.assert_recovered()
    record.assert_sound(broken=True)


def test_after_a_restart_during_an_outage_of_google_replicas_serve_the_sealed_tokens(
    fleet: Fleet,
) -> None:
    fleet.google.behave(token_lifetime=LONG)
    for user in fleet.users:
        wait_until("a token with a long lifetime", lambda user=user: _life(fleet, user) > LONG / 2)  # type: ignore[misc]
    known = {user.id: _value(fleet, user) for user in fleet.users}
    fleet.google.stop()
    try:
        for replica in fleet.replicas:
            replica.kill()
        start_all(fleet.replicas)
        for number in range(4):
            assert {user.id: _value(fleet, user, number) for user in fleet.users} == known
    finally:
        fleet.google.start()
    fleet.google.behave(token_lifetime=TOKEN_LIFETIME)
    fleet.google.state.access_tokens.clear()
    fleet.sql("DELETE FROM access_tokens")
    for replica in fleet.replicas:
        replica.kill()
    start_all(fleet.replicas)
    fleet.assert_recovered()


def _life(fleet: Fleet, user: User) -> int:
    life: int = fleet.token(user, min_ttl=LONG // 2).json()["expires_in"]
    return life


def _value(fleet: Fleet, user: User, replica: int = 0) -> str:
    value: str = fleet.token(user, replica).raise_for_status().json()["access_token"]
    return value


def _seconds_until_refused(fleet: Fleet, user: User) -> Sequence[float]:
    """Revoke at one replica; return for each replica the seconds until it refuses the token."""
    for number in range(4):
        assert fleet.token(user, number, min_ttl=0).status_code == 200
    assert fleet.revoke(user).status_code == 204
    began = time.monotonic()

    def until_refused(number: int) -> float:
        wait_until(
            "it is refused",
            lambda: fleet.token(user, number, min_ttl=0).status_code == 404,
            within=5,
        )
        return time.monotonic() - began

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(until_refused, range(4)))


def test_a_revocation_is_known_to_all_replicas_immediately(fleet: Fleet) -> None:
    took = [s for user in fleet.connect(10) for s in _seconds_until_refused(fleet, user)]
    assert quantiles(took, n=100)[98] < 0.1


def test_check_39_without_notifications_a_revocation_is_known_to_all_within_a_second(
    fleet: Fleet,
) -> None:
    cut_listeners = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'token-broker listener' AND datname = current_database()"
    )
    took: list[float] = []
    for user in fleet.connect(6):
        wait_until("all replicas listen", lambda: int(fleet.sql(cut_listeners)) == 4)
        took += _seconds_until_refused(fleet, user)
    assert max(took) < 1
    fleet.assert_recovered()


def test_the_listening_connections_are_cut_continuously(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        for _ in range(20):
            fleet.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'token-broker listener'"
            )
            time.sleep(0.2)
        fleet.assert_recovered()
    record.assert_sound()


@pytest.fixture
def other_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    name = f"chaos_{uuid4().hex}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


def test_in_memory_mode_no_token_is_ever_written(
    tmp_path: Path, postgres: EmbeddedPostgres, other_database: str, google: GoogleStandin
) -> None:
    with running_fleet(
        tmp_path,
        postgres,
        other_database,
        google,
        replicas=2,
        settings={"BROKER_ACCESS_TOKENS": "memory"},
    ) as fleet:
        fleet.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RAISE EXCEPTION ''a token was written''; END'; "
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON access_tokens "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        fleet.connect(4)
        with load_on(fleet) as record:
            time.sleep(TOKEN_LIFETIME + 1)
            fleet.assert_recovered()
        record.assert_sound(among_replicas=False)


def _launchers(offsets: Sequence[int]) -> dict[int, tuple[str, dict[str, str]]]:
    """Return launchers for skewed clocks: Debian's faketime if installed, else our own module."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return {
            number: ("tests.chaos.skewed_broker", {"CHAOS_CLOCK_OFFSET": str(offset)})
            for number, offset in enumerate(offsets)
        }
    return {
        number: ("broker.cli", {"LD_PRELOAD": str(library), "FAKETIME": f"{offset:+d}s"})
        for number, offset in enumerate(offsets)
    }


@pytest.mark.parametrize("offsets", [(300, -300)], ids=str)
def test_clocks_are_minutes_off(
    tmp_path: Path,
    postgres: EmbeddedPostgres,
    other_database: str,
    google: GoogleStandin,
    offsets: tuple[int, int],
) -> None:
    with running_fleet(
        tmp_path, postgres, other_database, google, replicas=3, modules=_launchers(offsets)
    ) as fleet:
        fleet.connect(6)
        with load_on(fleet) as record:
            time.sleep(TOKEN_LIFETIME + 1)
            fleet.assert_recovered()
        record.assert_sound()
        (user,) = fleet.connect()
        fleet.let_expire([user])
        google.behave(token_lifetime=LONG)
        before = fleet.refreshes()
        answers = asyncio.run(ask_concurrently(fleet, user, 60))
        assert {answer.status for answer in answers} == {200}
        assert not [answer.fault for answer in answers if answer.fault]
        assert fleet.refreshes() == before + 1
        google.behave(token_lifetime=TOKEN_LIFETIME)
