"""Model-based histories with a failover each, and random runs with failovers."""

from pathlib import Path

import pytest

from model.history import Options, read_history
from model.play import play

pytestmark = pytest.mark.chaos

_HISTORIES = Path(__file__).parents[1] / "model" / "histories"
_FAILOVERS = sorted(path.stem for path in _HISTORIES.glob("finding_1_*.jsonl"))


@pytest.mark.parametrize("name", _FAILOVERS)
def test_an_earlier_finding_after_a_failover_does_not_recur(name: str, tmp_path: Path) -> None:
    options, steps = read_history(_HISTORIES / f"{name}.jsonl")
    assert play(options, steps, tmp_path).checks["quiet points"] >= 1


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_run_with_failovers_finds_nothing(replicas: int, tmp_path: Path) -> None:
    options = Options(seed=replicas, replicas=replicas)
    played = play(options, None, tmp_path, seconds=60)
    assert played.checks["quiet points"] >= 3
