"""Faults reach a receiver: broker, Prometheus, Alertmanager and a receiver, all real.

Rules, routes and Prometheus's configuration are the shipped or documented ones; only waits are
shorter.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import Fleet, running_fleet
from tests.deploy import alertmanager_server, prometheus_server
from tests.deploy.alertmanager_server import Receivers, alertmanager, receivers
from tests.deploy.prometheus_server import Prometheus, scraping
from tests.docs.documents import ROOT, anchors, blocks, section, text_of
from tests.support.optional_parts import skip_without
from tests.support.processes import wait_until

pytestmark = pytest.mark.process

MONITOR = "docs/how-to/monitor.md"


@dataclass(frozen=True)
class Watched:
    """A broker and the receivers of its alerts."""

    fleet: Fleet
    prometheus: Prometheus
    takers: Receivers


def shown_configuration() -> Mapping[str, Any]:
    """Return the guide's configuration for links to the runbooks."""
    (shown,) = blocks(section(text_of(MONITOR), "### Links to the runbooks"), "yaml")
    configuration: Mapping[str, Any] = yaml.safe_load(shown)
    return configuration


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres
) -> Iterator[Watched]:
    if not (prometheus_server.is_installed() and alertmanager_server.is_installed()):
        skip_without("Prometheus is missing (Debian packages: prometheus, prometheus-alertmanager)")
    folder: Path = tmp_path_factory.mktemp("delivery")
    database = f"delivery_{uuid4().hex}"
    postgres.create_database(database)
    google = GoogleStandin()
    google.start()
    shown = shown_configuration()
    try:
        with (
            running_fleet(folder, postgres, database, google, replicas=1) as fleet,
            receivers() as takers,
            alertmanager(folder, takers) as address,
            scraping(
                f"127.0.0.1:{fleet.replicas[0].ports.ops}",
                folder,
                external_labels=shown["global"]["external_labels"],
                alerting={
                    **shown["alerting"],
                    "alertmanagers": [{"static_configs": [{"targets": [address]}]}],
                },
            ) as prometheus,
        ):
            fleet.connect(2)
            yield Watched(fleet, prometheus, takers)
    finally:
        google.stop()
        postgres.drop_database(database)


@contextmanager
def refused_client(fleet: Fleet) -> Iterator[None]:
    """Google rejects our client secret, as after a botched rotation."""
    fleet.google.faults.always("token", Fault.invalid_client())
    try:
        fleet.let_expire(fleet.users)
        assert fleet.token(fleet.users[0]).json()["code"] == "client_misconfigured"
        yield
    finally:
        fleet.google.faults.clear()


@contextmanager
def stopped_postgresql(fleet: Fleet) -> Iterator[None]:
    """PostgreSQL accepts no connections while a caller revokes a user's grants."""
    allow = f'ALTER DATABASE "{fleet.database}" ALLOW_CONNECTIONS'
    fleet.postgres.execute(f"{allow} false")
    fleet.postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{fleet.database}'"
    )
    try:
        assert fleet.revoke(fleet.users[0]).status_code == 503
        yield
    finally:
        fleet.postgres.execute(f"{allow} true")


@contextmanager
def changed_table(fleet: Fleet) -> Iterator[None]:
    """The schema was changed by hand; to the broker that is a defect."""
    fleet.sql("ALTER TABLE grants RENAME COLUMN status TO condition")
    try:
        fleet.let_expire(fleet.users)
        assert fleet.token(fleet.users[0]).json()["code"] == "internal_error"
        yield
    finally:
        fleet.sql("ALTER TABLE grants RENAME COLUMN condition TO status")


@pytest.mark.parametrize(
    ("fault", "alert", "receiver"),
    [
        (refused_client, "TokenBrokerClientRefused", "pager"),
        (changed_table, "TokenBrokerInternalErrors", "tickets"),
        (stopped_postgresql, "TokenBrokerRevocationFailed", "pager"),
    ],
    ids=["google", "availability", "revocations"],
)
def test_a_fault_reaches_its_receiver_with_its_runbook(
    watched: Watched, fault: Any, alert: str, receiver: str
) -> None:
    assert not watched.takers.notifications_of(alert)
    with fault(watched.fleet):
        wait_until(
            f"{alert} is delivered", lambda: bool(watched.takers.notifications_of(alert)), within=30
        )
    delivered = watched.takers.notifications_of(alert)
    assert set(delivered) == {receiver}
    assert_links_its_runbook(alert, delivered[receiver])


def assert_links_its_runbook(alert: str, sent: Mapping[str, Any]) -> None:
    """Check that its link names an existing runbook, and that its text has no unfilled template."""
    base: str = shown_configuration()["global"]["external_labels"]["runbook_base_url"]
    assert sent["labels"]["job"] == "token-broker"
    assert "runbook_base_url" not in sent["labels"]
    address: str = sent["annotations"]["runbook_url"]
    assert address.startswith(base)
    path, _, anchor = address.removeprefix(base).partition("#")
    assert anchor == alert.lower()
    assert anchor in anchors((ROOT / path).read_text(encoding="utf-8"))
    description: str = sent["annotations"]["description"]
    assert "{{" not in description
    assert any(character.isdigit() for character in description)


def test_a_defect_counts_against_the_objective(watched: Watched) -> None:
    """The objective's alerts use this count, as Prometheus has it."""
    failed = 'sum(broker_token_requests_total{outcome="internal_error"})'
    (before,) = watched.prometheus.query(failed)
    with changed_table(watched.fleet):
        wait_until(
            "Prometheus has the failed request",
            lambda: (
                float(watched.prometheus.query(failed)[0]["value"][1]) > float(before["value"][1])
            ),
            within=20,
        )
