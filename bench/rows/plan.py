"""What each row is given: how much to measure, where, and where to say how it goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.cores import Cores


class RowNotMeasurableError(Exception):
    """This broker, or this machine, lacks what the row measures; the message says what."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the benchmark."""

    folder: Path
    cores: Cores | None
    quick: bool
    """Only to see that everything runs: the figures mean little."""
    tell: Callable[[str], None]

    def rounds(self, usual: int) -> int:
        return 1 if self.quick else usual

    def seconds(self, usual: float) -> float:
        return 0.3 if self.quick else usual

    def count(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual
