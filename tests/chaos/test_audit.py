"""A crash costs the audit trail at most its last second, and never its integrity."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import RECOVERY_SECONDS, Fleet, running_fleet, token_url
from tests.chaos.pgbouncer import BINARY, transaction_pooler
from tests.support.optional_parts import skip_without
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

_BUSY_SECONDS = 3.0
_AT_RISK_SECONDS = 1.0


@pytest.fixture
def single(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin
) -> Iterator[Fleet]:
    """One replica; its tokens outlive the test."""
    with running_fleet(tmp_path, own_postgres, "broker", google, replicas=1) as fleet:
        google.behave(token_lifetime=600)
        fleet.connect()
        yield fleet


def test_a_killed_broker_loses_at_most_the_last_second_of_records(single: Fleet) -> None:
    replica, (user,) = single.replicas[0], single.users
    answered: list[tuple[float, str]] = []
    began = time.monotonic()
    while time.monotonic() - began < _BUSY_SECONDS:
        answer = single.http.get(token_url(replica, user), headers=single.authorization)
        assert answer.status_code == 200
        answered.append((time.monotonic(), answer.headers["x-request-id"]))
    replica.kill()
    killed = answered[-1][0]
    single.assert_audit_trail_intact()
    written = set(single.sql("SELECT request_id FROM audit_events").split())
    lost = [at for at, request_id in answered if request_id not in written]
    assert len(answered) > 100
    assert all(killed - at <= _AT_RISK_SECONDS for at in lost), killed - min(lost)


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
def test_a_trail_of_two_replicas_is_intact_after_postgresql_crashed(
    tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin, *, is_pooled: bool
) -> None:
    """Each token that a live replica returned has exactly one record."""
    if is_pooled and BINARY is None:
        skip_without("PgBouncer is not installed")
    google.reset()
    with ExitStack() as stack:
        url = own_postgres.url("broker")
        if is_pooled:
            port = stack.enter_context(transaction_pooler(own_postgres, tmp_path, size=4))
            url = url.replace(f":{own_postgres.port}/", f":{port}/")
        fleet = stack.enter_context(
            running_fleet(tmp_path, own_postgres, "broker", google, replicas=2, database_url=url)
        )
        google.behave(token_lifetime=600)
        (user,) = fleet.connect()
        answered: list[str] = []
        for crash in range(3):
            ends = time.monotonic() + _BUSY_SECONDS / 2
            while time.monotonic() < ends:
                for replica in fleet.replicas:
                    answer = fleet.http.get(token_url(replica, user), headers=fleet.authorization)
                    if answer.status_code == 200:
                        answered.append(answer.headers["x-request-id"])
            if crash < 2:
                own_postgres.stop("immediate")
                own_postgres.start()
        assert len(answered) > 100
        query = "SELECT request_id FROM audit_events WHERE action = 'token_handed_out'"
        wait_until(
            "all records are written",
            lambda: set(answered) <= set(fleet.sql(query).split()),
            within=RECOVERY_SECONDS,
        )
        assert sorted(answered) == sorted(fleet.sql(query).split())
        fleet.assert_audit_trail_intact()
        for replica in fleet.replicas:
            assert "lost seals" not in replica.output
            assert "Traceback" not in replica.output
