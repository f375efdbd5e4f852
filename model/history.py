"""A history as JSON lines: the options of the run, then each step with its outcome."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    seed: int = 0
    replicas: int = 2
    users: int = 4
    accounts: int = 3
    standby: bool = True
    troubles: bool = True


class History:
    """A history that is written step by step, so that a crash loses nothing."""

    def __init__(self, file: TextIO, options: Options) -> None:
        self._file = file
        self.lines: list[str] = []
        self._write({"options": asdict(options)})

    def add(self, number: int, seconds: float, step: Mapping[str, Any], outcome: str) -> None:
        self._write({"n": number, "at": round(seconds, 2), "do": dict(step), "outcome": outcome})

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line)
        self.lines.append(text)
        self._file.write(text + "\n")
        self._file.flush()


def read_history(path: Path) -> tuple[Options, Sequence[Mapping[str, Any]]]:
    """Read the options and the steps. Raises `ValueError` for another file."""
    first, *rest = (json.loads(line) for line in path.read_text("utf-8").splitlines() if line)
    if "options" not in first:
        raise ValueError(f"{path} is not a history: its first line has no options")
    return Options(**first["options"]), [line["do"] for line in rest]
