"""The upkeep's chores: none starves for another's fault, and a fault is told once."""

import logging
from collections.abc import AsyncIterator, Mapping

import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import (
    Database,
    StorageBusy,
    StorageContended,
    StorageUnavailable,
)
from broker.grants.store import GrantStore
from broker.ops.upkeep import Upkeep
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.clock import ManualClock


class Chore:
    """Does as it is told, and counts."""

    def __init__(self) -> None:
        self.rounds = 0
        self.failure: Exception | None = None

    async def __call__(self) -> None:
        self.rounds += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def store(database_url: str, clock: ManualClock) -> AsyncIterator[GrantStore]:
    database = Database(Secret(database_url))
    await database.open()
    sealer = Sealer(local_sealing_keys([Secret("a-key-" + "k" * 32)]))
    yield GrantStore(database, sealer, clock, keep_access_tokens=True)
    await database.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def chores() -> Mapping[str, Chore]:
    return {"first": Chore(), "second": Chore(), "last": Chore()}


@pytest.fixture
def upkeep(store: GrantStore, metrics: Metrics, chores: Mapping[str, Chore]) -> Upkeep:
    return Upkeep(grants=store, metrics=metrics, purges=chores)


def _failures(metrics: Metrics, chore: str) -> float:
    return (
        metrics.registry.get_sample_value("broker_upkeep_failures_total", {"chore": chore}) or 0.0
    )


@pytest.mark.parametrize("failure", [KeyError("a defect"), StorageUnavailable("a table's own")])
async def test_a_chore_that_fails_starves_none_of_the_others(
    upkeep: Upkeep, chores: Mapping[str, Chore], failure: Exception
) -> None:
    chores["first"].failure = failure
    await upkeep.round()
    assert [chore.rounds for chore in chores.values()] == [1, 1, 1]


async def test_a_gauge_that_can_not_be_counted_starves_no_chore(
    upkeep: Upkeep, chores: Mapping[str, Chore], store: GrantStore, metrics: Metrics
) -> None:
    await store._database.execute("ALTER TABLE grants RENAME TO elsewhere")
    await upkeep.round()
    assert [chore.rounds for chore in chores.values()] == [1, 1, 1]
    assert _failures(metrics, "count grants") == 1


async def test_a_failure_is_logged_and_counted_once_until_the_chore_works_again(
    upkeep: Upkeep,
    chores: Mapping[str, Chore],
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = chores["second"]
    for outage in (1, 2):
        caplog.clear()
        broken.failure = KeyError("a defect")
        for _ in range(3):
            await upkeep.round()
        (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert (told.__dict__["chore"], told.exc_info is not None) == ("second", True)
        assert _failures(metrics, "second") == outage
        broken.failure = None
        await upkeep.round()
    assert [_failures(metrics, name) for name in ("first", "last", "count grants")] == [0, 0, 0]


async def test_an_outage_of_storage_is_no_chores_fault(
    upkeep: Upkeep, chores: Mapping[str, Chore], store: GrantStore, metrics: Metrics
) -> None:
    await store._database.close()
    for chore in chores.values():
        chore.failure = StorageUnavailable("away")
    with pytest.raises(StorageUnavailable):
        await upkeep.round()
    assert [_failures(metrics, name) for name in (*chores, "count grants")] == [0, 0, 0, 0]


def _blamed(metrics: Metrics, chores: Mapping[str, Chore]) -> list[str]:
    return [name for name in ("count grants", *chores) if _failures(metrics, name)]


def _set_away(chores: Mapping[str, Chore], *away: str) -> None:
    for name, chore in chores.items():
        chore.failure = StorageUnavailable("away") if name in away else None


async def test_an_outage_that_begins_or_ends_in_the_midst_of_a_round_is_no_chores_fault(
    upkeep: Upkeep,
    chores: Mapping[str, Chore],
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for away in (["last"], ["first"], ["second", "last"], []):
        _set_away(chores, *away)
        await upkeep.round()
    assert _blamed(metrics, chores) == []
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a_chore_for_which_alone_storage_stays_away_is_told_of_in_the_second_round(
    upkeep: Upkeep, chores: Mapping[str, Chore], metrics: Metrics
) -> None:
    _set_away(chores, "second")
    await upkeep.round()
    assert _blamed(metrics, chores) == []
    for _ in range(2):
        await upkeep.round()
    assert _failures(metrics, "second") == 1
    assert _blamed(metrics, chores) == ["second"]


async def test_that_all_connections_are_in_use_is_no_chores_fault(
    upkeep: Upkeep, chores: Mapping[str, Chore], metrics: Metrics
) -> None:
    for name in ("first", "second"):
        chores[name].failure = StorageBusy("no connection became free in time")
    for _ in range(3):
        await upkeep.round()
    assert _blamed(metrics, chores) == []
    assert chores["last"].rounds == 3


async def test_a_round_ends_once_two_chores_in_a_row_found_storage_away(
    upkeep: Upkeep, chores: Mapping[str, Chore], metrics: Metrics
) -> None:
    _set_away(chores, "first", "second")
    with pytest.raises(StorageUnavailable):
        await upkeep.round()
    assert [chore.rounds for chore in chores.values()] == [1, 1, 0]
    assert _blamed(metrics, chores) == []


async def test_two_neighbours_for_which_storage_stays_away_starve_nobody_and_are_told_of(
    upkeep: Upkeep, chores: Mapping[str, Chore], metrics: Metrics
) -> None:
    _set_away(chores, "first", "second")
    with pytest.raises(StorageUnavailable):
        await upkeep.round()
    for _ in range(2):
        await upkeep.round()
    assert chores["last"].rounds == 2
    assert _blamed(metrics, chores) == ["first", "second"]


async def test_a_defect_is_told_of_though_the_round_ended_early(
    upkeep: Upkeep, chores: Mapping[str, Chore], metrics: Metrics
) -> None:
    _set_away(chores, "second", "last")
    chores["first"].failure = KeyError("a defect")
    upkeep._order.append(upkeep._order.pop(0))
    with pytest.raises(StorageUnavailable):
        await upkeep.round()
    assert _blamed(metrics, chores) == ["first"]


async def test_a_chore_that_somebody_elses_lock_keeps_from_its_work_is_told_of_in_the_second_round(
    upkeep: Upkeep, chores: Mapping[str, Chore], metrics: Metrics
) -> None:
    for chore in chores.values():
        chore.failure = StorageContended("LockNotAvailableError")
    await upkeep.round()
    assert [chore.rounds for chore in chores.values()] == [1, 1, 1]
    assert _blamed(metrics, chores) == []
    await upkeep.round()
    assert _blamed(metrics, chores) == list(chores)
