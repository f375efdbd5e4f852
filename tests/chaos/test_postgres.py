"""PostgreSQL stopped, crashed, failed over and out of connections, with replicas under load."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet, running_fleet
from tests.chaos.load import load_on
from tests.chaos.standby import promote, streaming_replica, wait_until_caught_up
from tests.support.outages import hanging_postgres
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

OUTAGE_SECONDS = TOKEN_LIFETIME + 1.5
"""Long enough for every token to expire."""

_DETECTION_SECONDS = 2.5
"""Seconds until every replica has detected that PostgreSQL hangs."""

USERS = 6

_CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name LIKE 'token-broker%' AND datname = 'broker'"
)


@pytest.fixture
def fleet(tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin) -> Iterator[Fleet]:
    """Two replicas on a PostgreSQL that the test may stop."""
    google.reset()
    with running_fleet(tmp_path, own_postgres, "broker", google, replicas=2) as fleet:
        fleet.connect(USERS)
        yield fleet


def test_postgresql_is_stopped_immediately_and_started_again(
    fleet: Fleet, own_postgres: EmbeddedPostgres
) -> None:
    with load_on(fleet) as record:
        own_postgres.stop("immediate")
        time.sleep(OUTAGE_SECONDS)
        own_postgres.start()
        back = time.time()
        fleet.assert_recovered()
        time.sleep(3)
    record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)
    record.since(back + 2).assert_sound()
    _assert_written(fleet)


def test_postgresql_crashes_repeatedly(fleet: Fleet, own_postgres: EmbeddedPostgres) -> None:
    with load_on(fleet) as record:
        for _ in range(4):
            own_postgres.stop("immediate")
            time.sleep(0.3)
            own_postgres.start()
            time.sleep(0.7)
        fleet.assert_recovered()
    record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)


def test_a_streaming_replica_is_read_while_the_primary_is_down(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin
) -> None:
    google.reset()
    with _following(tmp_path, own_postgres, google) as (fleet, standby):
        wait_until_caught_up(own_postgres, standby)
        with load_on(fleet) as record:
            own_postgres.stop("immediate")
            down = time.time()
            time.sleep(OUTAGE_SECONDS)
            own_postgres.start()
            fleet.assert_recovered()
        record.assert_sound(among_replicas=False)
        assert len(record.since(down).answers) > 50
        _assert_written(fleet)


def test_a_streaming_replica_is_read_while_the_primary_hangs(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin
) -> None:
    google.reset()
    with _following(tmp_path, own_postgres, google) as (fleet, standby):
        wait_until_caught_up(own_postgres, standby)
        with load_on(fleet) as record:
            with hanging_postgres(own_postgres):
                hung = time.time()
                time.sleep(_DETECTION_SECONDS + OUTAGE_SECONDS)
                record_of_the_hang = record.since(hung + _DETECTION_SECONDS)
            fleet.assert_recovered()
        record.assert_sound(among_replicas=False)
        assert len(record_of_the_hang.answers) > 50
        assert record_of_the_hang.slowest() < 2
        _assert_written(fleet)


def test_without_a_read_replica_no_request_waits_for_a_postgresql_that_hangs(
    fleet: Fleet, own_postgres: EmbeddedPostgres
) -> None:
    with load_on(fleet) as record:
        with hanging_postgres(own_postgres):
            hung = time.time()
            time.sleep(_DETECTION_SECONDS + OUTAGE_SECONDS)
            record_of_the_hang = record.since(hung + _DETECTION_SECONDS)
        back = time.time()
        fleet.assert_recovered()
        time.sleep(3)
    record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)
    assert len(record_of_the_hang.answers) > 50
    assert "503 storage_unavailable" in record_of_the_hang.summary()
    assert record_of_the_hang.slowest(503) < 1
    record.since(back + 2).assert_sound()


def test_google_rotates_refresh_tokens_while_the_primary_is_down(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin
) -> None:
    google.reset()
    with _following(tmp_path, own_postgres, google) as (fleet, standby):
        wait_until_caught_up(own_postgres, standby)
        with load_on(fleet) as record:
            own_postgres.stop("immediate")
            fleet.google.faults.always(
                "token", Fault.rotate_refresh_token(), grant_type="refresh_token"
            )
            time.sleep(OUTAGE_SECONDS)
            fleet.google.faults.clear()
            own_postgres.start()
            fleet.assert_recovered(within=20)
        record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)


def test_a_failover_to_a_promoted_replica(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin
) -> None:
    google.reset()
    with _following(tmp_path, own_postgres, google) as (fleet, standby):
        with load_on(fleet) as record:
            wait_until_caught_up(own_postgres, standby)
            own_postgres.stop("immediate")
            time.sleep(1)
            promote(standby)
            fleet.postgres = standby
            fleet.assert_recovered()
        record.assert_sound(among_replicas=False)


@contextmanager
def _following(
    folder: Path, primary: EmbeddedPostgres, google: GoogleStandin
) -> Iterator[tuple[Fleet, EmbeddedPostgres]]:
    """Two replicas of the broker that know a standby: as a read replica and as the next primary."""
    standby = streaming_replica(primary, folder / "standby")
    try:
        either = primary.url("broker").replace(
            f"127.0.0.1:{primary.port}", f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        )
        with running_fleet(
            folder,
            primary,
            "broker",
            google,
            replicas=2,
            database_url=f"{either}?target_session_attrs=read-write",
            settings={"DATABASE_REPLICA_URL": standby.url("broker")},
        ) as fleet:
            fleet.connect(USERS)
            yield fleet, standby
    finally:
        standby.stop("immediate")


def _assert_written(fleet: Fleet) -> None:
    """Wait until a refreshed, valid token is in the table."""
    living = "SELECT count(DISTINCT grant_id) FROM access_tokens WHERE expires_at > now()"
    wait_until("it is written", lambda: int(fleet.sql(living)) > 0, within=5)


def test_the_pools_are_exhausted(fleet: Fleet) -> None:
    with load_on(fleet) as record, ThreadPoolExecutor() as threads:
        locked = "BEGIN; LOCK TABLE refresh_leases, grants, access_tokens; SELECT pg_sleep(6); END"
        locking = threads.submit(fleet.sql, locked)
        locking.result()
        fleet.assert_recovered()
    record.assert_sound(allowed={"storage_unavailable", "google_unavailable"}, among_replicas=False)
    assert record.slowest() < 20


def test_the_server_accepts_three_connections_only(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin
) -> None:
    google.reset()
    own_postgres.execute("CREATE ROLE tenant LOGIN PASSWORD 'tenant' IN ROLE broker")
    url = own_postgres.url("broker").replace(f"broker:{own_postgres.password}", "tenant:tenant")
    with running_fleet(
        tmp_path, own_postgres, "broker", google, replicas=2, database_url=url
    ) as fleet:
        fleet.connect(USERS)
        with load_on(fleet) as record:
            fleet.sql("ALTER ROLE tenant CONNECTION LIMIT 3")
            fleet.sql(_CUT)
            time.sleep(OUTAGE_SECONDS)
            fleet.sql("ALTER ROLE tenant CONNECTION LIMIT -1")
            fleet.assert_recovered()
        record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)


def test_connections_are_cut_continuously(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        ends = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < ends:
            fleet.sql(_CUT)
            time.sleep(0.2)
        fleet.assert_recovered()
    record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)
