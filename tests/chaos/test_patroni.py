"""Failovers of a real Patroni cluster under consents, revocations, refreshes and events."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from devstack.google_standin import GoogleStandin
from tests.chaos.fleet import Fleet, running_fleet
from tests.chaos.journeys import Journey, Traffic, traffic_on
from tests.chaos.patroni import PatroniCluster, patroni_cluster, why_no_patroni
from tests.chaos.verdict import (
    assert_answers_correct,
    cached_tokens_served,
    grants_of,
    lost_changes,
    marked_by_mistake,
    tokens_after_the_end,
)

pytestmark = pytest.mark.chaos

REPLICAS = 3
STAYING = 3
LONG_LIFETIME = 150
"""Seconds. The tokens outlive a failover, as Google's do."""

_LOST_KINDS = {"consent", "revocation", "security_event", "change"}
"""The `kind` in the metric and in the audit trail."""

_RUN_UP = 4.0
_AFTERWARDS = 4.0

_DROPPED = 4.0
"""Seconds before and after a failover in which replicas may have empty caches."""

Report = Callable[[Traffic, str, float, float], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PatroniCluster]:
    """One cluster for all scenarios; each scenario restores it."""
    missing = why_no_patroni()
    if missing is not None:
        pytest.skip(f"no Patroni cluster: {missing}")
    with patroni_cluster(tmp_path_factory.mktemp("patroni")) as cluster:
        yield cluster


@pytest.fixture
def fleet(tmp_path: Path, cluster: PatroniCluster, google: GoogleStandin) -> Iterator[Fleet]:
    """Replicas on a database of this test only; each knows all three nodes."""
    google.reset()
    database = f"broker_{uuid4().hex[:12]}"
    cluster.recover()
    cluster.execute(f"CREATE DATABASE {database}")
    with running_fleet(tmp_path, cluster, database, google, replicas=REPLICAS) as fleet:
        yield fleet


def test_a_killed_primary_loses_commits(
    fleet: Fleet, cluster: PatroniCluster, report: Report
) -> None:
    cluster.replicate_synchronously(on=False)
    fleet.google.behave(token_lifetime=LONG_LIFETIME)
    with traffic_on(fleet) as traffic:
        cut_at, doomed = _commit_on_the_primary_only(traffic, cluster)
        former = cluster.primary
        former.lose_power()
        lost_at = time.time()
        cluster.wait_until_failed_over(former)
        back = traffic.wait_for_a_change(lost_at)
        _end_all(traffic, doomed)
        former.boot()
        cluster.wait_until_whole()
        time.sleep(_AFTERWARDS)
        traffic.stop_arrivals()
        time.sleep(_AFTERWARDS)
    report(traffic, "asynchronous, primary killed", lost_at, back)
    _assert_sound_although_commits_were_lost(fleet, traffic, (cut_at, back))


def test_a_partitioned_primary_returns(
    fleet: Fleet, cluster: PatroniCluster, report: Report
) -> None:
    cluster.replicate_synchronously(on=False)
    fleet.google.behave(token_lifetime=LONG_LIFETIME)
    with traffic_on(fleet) as traffic:
        cut_at, doomed = _commit_on_the_primary_only(traffic, cluster)
        former = cluster.primary
        cluster.cut_off(former, clients=False, etcd=True, nodes=True)
        lost_at = time.time()
        cluster.wait_until_failed_over(former)
        former.machine.reconnect()
        back = traffic.wait_for_a_change(lost_at + 10)
        _end_all(traffic, doomed)
        cluster.wait_until_whole()
        time.sleep(_AFTERWARDS)
        traffic.stop_arrivals()
        time.sleep(_AFTERWARDS)
    report(traffic, "asynchronous, primary partitioned", lost_at, back)
    assert cluster.primary is not former
    _assert_sound_although_commits_were_lost(fleet, traffic, (cut_at, back))


def test_a_switchover_loses_nothing(fleet: Fleet, cluster: PatroniCluster, report: Report) -> None:
    cluster.replicate_synchronously(on=False)
    with traffic_on(fleet) as traffic:
        _run_up(traffic)
        former = cluster.primary
        began = time.time()
        cluster.switch_over()
        cluster.wait_until_whole()
        back = traffic.wait_for_a_change(began)
        time.sleep(_AFTERWARDS)
        traffic.stop_arrivals()
        time.sleep(_AFTERWARDS)
    report(traffic, "switchover", began, back)
    assert cluster.primary is not former
    _assert_nothing_is_lost(fleet, traffic)


def test_with_synchronous_replication_a_killed_primary_loses_nothing(
    fleet: Fleet, cluster: PatroniCluster, report: Report
) -> None:
    cluster.replicate_synchronously(on=True)
    with traffic_on(fleet) as traffic:
        _run_up(traffic)
        former = cluster.primary
        former.lose_power()
        lost_at = time.time()
        cluster.wait_until_failed_over(former)
        back = traffic.wait_for_a_change(lost_at)
        former.boot()
        cluster.wait_until_whole()
        time.sleep(_AFTERWARDS)
        traffic.stop_arrivals()
        time.sleep(_AFTERWARDS)
    report(traffic, "synchronous, primary killed", lost_at, back)
    _assert_nothing_is_lost(fleet, traffic)


def test_with_synchronous_replication_an_isolated_primary_loses_nothing(
    fleet: Fleet, cluster: PatroniCluster, report: Report
) -> None:
    cluster.replicate_synchronously(on=True)
    with traffic_on(fleet) as traffic:
        _run_up(traffic)
        former = cluster.primary
        # Callers still reach it: they repeat requests whose commit waits for a replica.
        cluster.cut_off(former, clients=False, etcd=True, nodes=True)
        lost_at = time.time()
        time.sleep(2)
        cluster.cut_off(former, clients=True, etcd=False, nodes=False)
        cluster.wait_until_failed_over(former)
        back = traffic.wait_for_a_change(lost_at + 10)
        former.machine.reconnect()
        cluster.wait_until_whole()
        time.sleep(_AFTERWARDS)
        traffic.stop_arrivals()
        time.sleep(_AFTERWARDS)
    report(traffic, "synchronous, primary partitioned", lost_at, back)
    _assert_nothing_is_lost(fleet, traffic)


def _run_up(traffic: Traffic) -> None:
    """Connect users who stay, in addition to those who arrive and leave."""
    staying = traffic.add_users(STAYING)
    traffic.wait_for(staying)
    traffic.wait_until_polled(staying)
    time.sleep(_RUN_UP)


def _commit_on_the_primary_only(
    traffic: Traffic, cluster: PatroniCluster
) -> tuple[float, list[Journey]]:
    """Make changes of each kind that no replica gets; return since when, and the connected users.

    From the cut on, each acknowledged commit exists on the primary only. Before it, every replica
    of the broker has returned tokens for all of these users.
    """
    reconsenting, leaving, hijacked = (
        traffic.add_users(3),
        traffic.add_users(3),
        traffic.add_users(3),
    )
    standing = [*reconsenting, *leaving, *hijacked]
    traffic.wait_for(standing)
    traffic.wait_until_polled(standing)
    _run_up(traffic)
    cut_at = time.time()
    cluster.cut_off(cluster.primary, clients=False, etcd=False, nodes=True)
    new = traffic.add_users(4)
    traffic.request_change(reconsenting, "consent")
    traffic.request_change(leaving, "revocation")
    traffic.request_change(hijacked, "event")
    traffic.wait_for([*standing, *new])
    traffic.wait_until_polled(new)
    time.sleep(2)
    return cut_at, [*new, *reconsenting]


def _end_all(traffic: Traffic, journeys: Sequence[Journey]) -> None:
    """End half by a revocation, half by a security event."""
    traffic.request_change(journeys[::2], "revocation")
    traffic.request_change(journeys[1::2], "event")
    traffic.wait_for(journeys)


def _assert_sound_although_commits_were_lost(
    fleet: Fleet, traffic: Traffic, suspect: tuple[float, float]
) -> None:
    grants = grants_of(fleet)
    late = tokens_after_the_end(traffic.journeys, suspect)
    assert not late, "\n".join(map(str, late[:20]))
    assert lost_changes(traffic.journeys, grants), "nothing was lost"
    assert not marked_by_mistake(traffic.journeys, grants, fleet)
    cut_at, back = suspect
    without = {
        journey.user.id
        for journey in traffic.journeys
        if journey.connected_at is not None and cut_at <= journey.connected_at <= back
    }
    assert_answers_correct(
        traffic.journeys, lost=without, nothing_cached=(back - _DROPPED, back + _DROPPED)
    )
    _assert_the_connected_are_served(
        fleet, traffic, but={user_id for user_id in without if user_id not in grants}
    )
    _assert_the_loss_is_reported(fleet)


def _assert_the_loss_is_reported(fleet: Fleet) -> None:
    """Check logs, metrics, the audit trail and `broker doctor`."""
    for replica in fleet.replicas:
        assert replica.metric("broker_storage_failovers_total") == 1
        assert "commit_lost" in replica.output
    for kind in _LOST_KINDS:
        counted = [r.metric("broker_lost_commits_total", kind=kind) for r in fleet.replicas]
        assert sum(counted) >= 1, kind
    recorded = fleet.sql("SELECT DISTINCT outcome FROM audit_events WHERE action = 'commit_lost'")
    assert {outcome.partition(":")[0] for outcome in recorded.splitlines()} == _LOST_KINDS
    assert "failovers lost commits" in fleet.run("doctor").stdout
    fleet.assert_audit_trail_intact()


def _assert_nothing_is_lost(fleet: Fleet, traffic: Traffic) -> None:
    grants = grants_of(fleet)
    lost = lost_changes(traffic.journeys, grants)
    assert not lost, [(journey, grants.get(journey.user.id)) for journey, _ in lost[:3]]
    late = tokens_after_the_end(traffic.journeys)
    assert not late, "\n".join(map(str, late[:20]))
    assert not marked_by_mistake(traffic.journeys, grants, fleet)
    assert_answers_correct(traffic.journeys)
    _assert_the_connected_are_served(fleet, traffic)
    fleet.assert_audit_trail_intact()


def _assert_the_connected_are_served(
    fleet: Fleet, traffic: Traffic, but: frozenset[str] | set[str] = frozenset()
) -> None:
    fleet.users = [
        journey.user
        for journey in traffic.journeys
        if journey.is_connected and journey.user.id not in but
    ]
    assert len(fleet.users) >= STAYING
    fleet.assert_all_served()


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Print the figures of this run that `docs/how-to/handle-a-failover.md` shows."""

    def write(traffic: Traffic, what: str, since: float, back: float) -> None:
        served, asked = cached_tokens_served(traffic.journeys, since, back)
        with capsys.disabled():
            sys.stdout.write(
                f"\n  {what}: {back - since:.1f} s until a change was acknowledged again; "
                f"of {asked} requests for a cached token meanwhile {served} were answered\n"
            )

    return write
