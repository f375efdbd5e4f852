"""A short random run of the model-based test, and the histories of earlier findings.

`make model` plays long histories.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from model.history import History, Options, read_history
from model.play import play, play_on
from model.run import Run
from model.system import System, running_system

pytestmark = pytest.mark.process

HISTORIES = Path(__file__).parent / "histories"
PATIENCE = 15.0
"""Seconds that a replica may be late on a busy machine. A defect would last for an hour."""
SEED, STEPS = 20, 60

_WITH_STANDBY = "finding_1_withdrawals_after_a_failover_that_lost_commits"
_WITHOUT_STANDBY = sorted(
    path.stem for path in HISTORIES.iterdir() if not path.stem.startswith("finding_1_")
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all histories that leave it unchanged; each has its own users and accounts."""
    with running_system(tmp_path_factory.mktemp("model"), replicas=2, standby=False) as running:
        yield running


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    options = Options(seed=SEED, standby=False)
    played = play(options, None, tmp_path, most=STEPS, patience=PATIENCE)
    assert played.checks["quiet points"] >= 2
    assert played.checks["answers"] > STEPS


@pytest.mark.parametrize("name", _WITHOUT_STANDBY)
def test_an_earlier_finding_does_not_recur(name: str, system: System, tmp_path: Path) -> None:
    _play_on(system, name, tmp_path)


def test_an_earlier_finding_after_a_failover_does_not_recur(tmp_path: Path) -> None:
    with running_system(tmp_path, replicas=2, standby=True) as system:
        _play_on(system, _WITH_STANDBY, tmp_path)


def _play_on(system: System, name: str, folder: Path) -> None:
    options, steps = read_history(HISTORIES / f"{name}.jsonl")
    own = f"-{name}"
    run = Run(
        system,
        users=[f"u{number}{own}" for number in range(options.users)],
        accounts=[f"a{number}{own}" for number in range(options.accounts)],
        patience=PATIENCE,
    )
    with (folder / "history.jsonl").open("w", encoding="utf-8") as file:
        play_on(run, [_renamed(steps, own)], History(file, options))
    assert run.checks["quiet points"] == 1


def _renamed(steps: Sequence[Any], own: str) -> Sequence[Any]:
    text = re.sub(r'"([ua]\d)"', rf'"\1{own}"', json.dumps(steps))
    renamed: Sequence[Any] = json.loads(text)
    return renamed
