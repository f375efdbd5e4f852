"""What each row gets: how much to measure, a folder, and a progress function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.cores import Cores


class RowNotMeasurableError(Exception):
    """This broker or machine lacks what the row measures; the message says what."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the benchmark."""

    folder: Path
    cores: Cores | None
    quick: bool
    """Only check that every row runs; the figures mean little."""
    progress: Callable[[str], None]

    def repetitions(self, usual: int) -> int:
        return 1 if self.quick else usual

    def seconds(self, usual: float) -> float:
        return 0.3 if self.quick else usual

    def count(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual
