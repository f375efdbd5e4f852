"""What a crash costs the audit trail: at most its last second."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.devstack.google_standin import GoogleStandin
from broker.devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import Fleet, running_fleet, token_url

pytestmark = pytest.mark.chaos

_BUSY_SECONDS = 3.0
_AT_RISK_SECONDS = 1.0


@pytest.fixture
def one(tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin) -> Iterator[Fleet]:
    """One replica, with a token that outlives the test."""
    with running_fleet(tmp_path, own_postgres, "broker", google, replicas=1) as fleet:
        google.behave(token_lifetime=600)
        fleet.connect()
        yield fleet


def test_a_killed_broker_loses_at_most_the_last_second_of_records(one: Fleet) -> None:
    replica, (user,) = one.replicas[0], one.users
    answered: list[tuple[float, str]] = []
    began = time.monotonic()
    while time.monotonic() - began < _BUSY_SECONDS:
        answer = one.http.get(token_url(replica, user), headers=one.authorization)
        assert answer.status_code == 200
        answered.append((time.monotonic(), answer.headers["x-request-id"]))
    replica.kill()
    killed = answered[-1][0]
    written = set(one.sql("SELECT request_id FROM audit_events").split())
    lost = [at for at, request_id in answered if request_id not in written]
    assert len(answered) > 100
    assert all(killed - at <= _AT_RISK_SECONDS for at in lost), killed - min(lost)
