"""Failovers of a real Patroni cluster while users consent, revoke, are refreshed and hijacked."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from devstack.google_standin import GoogleStandin
from tests.chaos.fleet import Fleet, running_fleet
from tests.chaos.journeys import Journey, Traffic, traffic_on
from tests.chaos.patroni import PatroniCluster, missing_for_patroni, patroni_cluster
from tests.chaos.verdict import (
    assert_nothing_wrong_was_answered,
    grants_of,
    held_tokens_served,
    lost_changes,
    marked_by_mistake,
    stale_tokens,
)

pytestmark = pytest.mark.chaos

REPLICAS = 3
STAYING = 3
LONG_LIFETIME = 150
"""Seconds: tokens that outlive a failover, as Google's do."""

_LOST_KINDS = {"consent", "revocation", "security_event", "change"}
"""As metric and audit trail name them."""

_RUN_UP = 4.0
_AFTERWARDS = 4.0

_DROPPED = 4.0
"""Seconds around a failover in which replicas have nothing cached, on a slow machine."""

Say = Callable[[Traffic, str, float, float], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PatroniCluster]:
    """One for all scenarios; each leaves it whole."""
    missing = missing_for_patroni()
    if missing is not None:
        pytest.skip(f"no Patroni cluster: {missing}")
    with patroni_cluster(tmp_path_factory.mktemp("patroni")) as cluster:
        yield cluster


@pytest.fixture
def fleet(tmp_path: Path, cluster: PatroniCluster, google: GoogleStandin) -> Iterator[Fleet]:
    """Replicas on a database of this test's own; each knows all three nodes."""
    google.reset()
    database = f"broker_{uuid4().hex[:12]}"
    cluster.recover()
    cluster.execute(f"CREATE DATABASE {database}")
    with running_fleet(tmp_path, cluster, database, google, replicas=REPLICAS) as fleet:
        yield fleet


def test_a_killed_primary_takes_commits_with_it(
    fleet: Fleet, cluster: PatroniCluster, say: Say
) -> None:
    cluster.replicate_synchronously(on=False)
    fleet.google.behave(token_lifetime=LONG_LIFETIME)
    with traffic_on(fleet) as traffic:
        cut_at, doomed = _commit_what_no_replica_gets(traffic, cluster)
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
    say(traffic, "asynchronous, primary killed", lost_at, back)
    _assert_sound_although_commits_were_lost(fleet, traffic, (cut_at, back))


def test_a_partitioned_primary_comes_back(fleet: Fleet, cluster: PatroniCluster, say: Say) -> None:
    cluster.replicate_synchronously(on=False)
    fleet.google.behave(token_lifetime=LONG_LIFETIME)
    with traffic_on(fleet) as traffic:
        cut_at, doomed = _commit_what_no_replica_gets(traffic, cluster)
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
    say(traffic, "asynchronous, primary partitioned", lost_at, back)
    assert cluster.primary is not former
    _assert_sound_although_commits_were_lost(fleet, traffic, (cut_at, back))


def test_a_switchover_loses_nothing(fleet: Fleet, cluster: PatroniCluster, say: Say) -> None:
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
    say(traffic, "switchover", began, back)
    assert cluster.primary is not former
    _assert_nothing_is_lost(fleet, traffic)


def test_with_synchronous_replication_a_killed_primary_takes_nothing_with_it(
    fleet: Fleet, cluster: PatroniCluster, say: Say
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
    say(traffic, "synchronous, primary killed", lost_at, back)
    _assert_nothing_is_lost(fleet, traffic)


def test_with_synchronous_replication_a_primary_cut_off_from_all_takes_nothing_with_it(
    fleet: Fleet, cluster: PatroniCluster, say: Say
) -> None:
    cluster.replicate_synchronously(on=True)
    with traffic_on(fleet) as traffic:
        _run_up(traffic)
        former = cluster.primary
        # Callers reach it for a while: they repeat what is not acknowledged for want of a replica.
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
    say(traffic, "synchronous, primary partitioned", lost_at, back)
    _assert_nothing_is_lost(fleet, traffic)


def _run_up(traffic: Traffic) -> None:
    """Some who stay connected all through, beside those who come and go."""
    staying = traffic.begin(STAYING)
    traffic.wait_for(staying)
    traffic.wait_until_polled(staying)
    time.sleep(_RUN_UP)


def _commit_what_no_replica_gets(
    traffic: Traffic, cluster: PatroniCluster
) -> tuple[float, list[Journey]]:
    """Consents, consents given anew, revocations and events; gives when it began, and who stays.

    From the cut on, each acknowledged commit exists at the primary only. Every replica of the
    broker has handed out tokens for all of them before.
    """
    anew, leaving, hijacked = traffic.begin(3), traffic.begin(3), traffic.begin(3)
    standing = [*anew, *leaving, *hijacked]
    traffic.wait_for(standing)
    traffic.wait_until_polled(standing)
    _run_up(traffic)
    cut_at = time.time()
    cluster.cut_off(cluster.primary, clients=False, etcd=False, nodes=True)
    new = traffic.begin(4)
    traffic.have(anew, "consent")
    traffic.have(leaving, "revocation")
    traffic.have(hijacked, "event")
    traffic.wait_for([*standing, *new])
    traffic.wait_until_polled(new)
    time.sleep(2)
    return cut_at, [*new, *anew]


def _end_all(traffic: Traffic, journeys: Sequence[Journey]) -> None:
    """Half by a revocation, half by an event."""
    traffic.have(journeys[::2], "revocation")
    traffic.have(journeys[1::2], "event")
    traffic.wait_for(journeys)


def _assert_sound_although_commits_were_lost(
    fleet: Fleet, traffic: Traffic, suspect: tuple[float, float]
) -> None:
    grants = grants_of(fleet)
    stale = stale_tokens(traffic.journeys, suspect)
    assert not stale, "\n".join(map(str, stale[:20]))
    assert lost_changes(traffic.journeys, grants), "nothing was lost"
    assert not marked_by_mistake(traffic.journeys, grants, fleet)
    cut_at, back = suspect
    without = {
        journey.user.id
        for journey in traffic.journeys
        if journey.connected_at is not None and cut_at <= journey.connected_at <= back
    }
    assert_nothing_wrong_was_answered(
        traffic.journeys, lost=without, nothing_cached=(back - _DROPPED, back + _DROPPED)
    )
    _assert_the_connected_are_served(
        fleet, traffic, but={user_id for user_id in without if user_id not in grants}
    )
    _assert_the_loss_is_reported(fleet)


def _assert_the_loss_is_reported(fleet: Fleet) -> None:
    """In logs, metrics, the audit trail, and by `broker doctor`."""
    for replica in fleet.replicas:
        assert replica.metric("broker_storage_failovers_total") == 1
        assert "a failover of PostgreSQL lost a commit" in replica.output
    for kind in _LOST_KINDS:
        counted = [r.metric("broker_lost_commits_total", kind=kind) for r in fleet.replicas]
        assert sum(counted) >= 1, kind
    recorded = fleet.sql("SELECT DISTINCT outcome FROM audit_events WHERE action = 'commit_lost'")
    assert {outcome.partition(":")[0] for outcome in recorded.splitlines()} == _LOST_KINDS
    assert "failovers lost commits" in fleet.run("doctor").stdout
    fleet.assert_trail_is_whole()


def _assert_nothing_is_lost(fleet: Fleet, traffic: Traffic) -> None:
    grants = grants_of(fleet)
    lost = lost_changes(traffic.journeys, grants)
    assert not lost, [(journey, grants.get(journey.user.id)) for journey, _ in lost[:3]]
    stale = stale_tokens(traffic.journeys)
    assert not stale, "\n".join(map(str, stale[:20]))
    assert not marked_by_mistake(traffic.journeys, grants, fleet)
    assert_nothing_wrong_was_answered(traffic.journeys)
    _assert_the_connected_are_served(fleet, traffic)
    fleet.assert_trail_is_whole()


def _assert_the_connected_are_served(
    fleet: Fleet, traffic: Traffic, but: frozenset[str] | set[str] = frozenset()
) -> None:
    fleet.users = [
        journey.user
        for journey in traffic.journeys
        if journey.is_connected and journey.user.id not in but
    ]
    assert len(fleet.users) >= STAYING
    fleet.assert_all_are_served()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Shows a figure of this run, as `docs/operations.md` has them."""

    def write(traffic: Traffic, what: str, since: float, back: float) -> None:
        served, asked = held_tokens_served(traffic.journeys, since, back)
        with capsys.disabled():
            sys.stdout.write(
                f"\n  {what}: {back - since:.1f} s until a change was acknowledged again; "
                f"of {asked} requests for a cached token meanwhile {served} got one\n"
            )

    return write
