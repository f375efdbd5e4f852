"""Rows of the benchmark's table: figures, their bounds, and the verdict."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Sense(StrEnum):
    """The side of the bound on which a figure must be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"
    EXACTLY = "exactly"


@dataclass(frozen=True, slots=True)
class Bound:
    """The bound of a figure."""

    sense: Sense
    limit: float
    unit: str = ""

    def is_kept_by(self, figure: float) -> bool:
        match self.sense:
            case Sense.AT_LEAST:
                return figure >= self.limit
            case Sense.AT_MOST:
                return figure <= self.limit
            case Sense.EXACTLY:
                return figure == self.limit

    def __str__(self) -> str:
        return f"{self.sense} {in_words(self.limit, self.unit)}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: a figure, its bound, and notes."""

    row: str
    """The name for `--only`."""
    what: str
    figure: float
    bound: Bound
    notes: Mapping[str, float | str] = field(default_factory=dict)
    failures: int = 0
    """Failed requests; with any, the figure is invalid."""

    @property
    def is_kept(self) -> bool:
        return not self.failures and self.bound.is_kept_by(self.figure)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that could not be measured, and why; the run has then failed."""

    row: str
    why: str


def in_words(figure: float, unit: str = "") -> str:
    """Return the number with three significant digits or so."""
    text = f"{figure:,.0f}" if figure == int(figure) else f"{figure:.3g}"
    return f"{text} {unit}".strip()


def as_json(figures: Sequence[Figure], skipped: Sequence[Skipped], *, pinned: bool) -> str:
    """Return one JSON object."""
    document = {
        "kept": has_passed(figures, skipped),
        "pinned": pinned,
        "figures": [{**asdict(figure), "kept": figure.is_kept} for figure in figures],
        "skipped": [asdict(each) for each in skipped],
    }
    return json.dumps(document, indent=2)


def as_text(figures: Sequence[Figure], skipped: Sequence[Skipped], *, pinned: bool) -> str:
    """Return the table with notes, and the verdict."""
    lines = []
    for figure in figures:
        verdict = "kept" if figure.is_kept else "MISSED"
        value = in_words(figure.figure, figure.bound.unit)
        lines.append(f"{verdict:<7}{figure.row}: {figure.what}")
        lines.append(f"       {value}, wanted: {figure.bound}")
        if figure.failures:
            lines.append(f"       {figure.failures} requests failed, so the figure is invalid")
        if figure.notes:
            notes = [f"{name} {_noted(value)}" for name, value in figure.notes.items()]
            lines.append("       " + ", ".join(notes))
    lines += [f"NOT RUN {each.row}: {each.why}" for each in skipped]
    kept = sum(figure.is_kept for figure in figures)
    lines.append(f"{kept} of {len(figures)} bounds met; a ratio (÷) has no unit")
    if not pinned:
        lines.append(
            "Servers and load generator were not pinned to CPU cores: less reliable figures."
        )
    return "\n".join(lines)


def has_passed(figures: Sequence[Figure], skipped: Sequence[Skipped]) -> bool:
    """True if every row was measured and every figure is within its bound."""
    return not skipped and all(figure.is_kept for figure in figures)


def _noted(value: float | str) -> str:
    return value if isinstance(value, str) else in_words(value)
