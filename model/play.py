"""Plays a history, generated or read from a file, until its end or the first finding."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from model.generator import Generator
from model.history import History, Options
from model.run import Run
from model.steps import Step, take
from model.system import running_system

_SHOWN = 30
_AT_THE_END: Sequence[Step] = ({"step": "check"}, {"step": "verify_audit"})


class FoundError(AssertionError):
    """The message has everything that a replay needs."""


@dataclass(frozen=True)
class Played:
    """The result of a run without findings."""

    steps: Counter[str]
    checks: Counter[str]
    wrongs: Counter[str]
    seconds: float


def play(
    options: Options,
    steps: Iterable[Step] | None,
    folder: Path,
    *,
    seconds: float = math.inf,
    most: int | None = None,
    patience: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Played:
    """Play steps until the time or `most` is reached, then check everything.

    The history is `folder/history.jsonl`. Raises `FoundError`.
    """
    with running_system(folder, replicas=options.replicas, standby=options.standby) as system:
        run = Run(
            system,
            users=[f"u{number}" for number in range(options.users)],
            accounts=[f"a{number}" for number in range(options.accounts)],
            patience=patience,
        )
        until = time.monotonic() + seconds
        chosen = steps if steps is not None else islice(_made_up(options, run, until), most)
        with (folder / "history.jsonl").open("w", encoding="utf-8") as file:
            return play_on(run, [chosen, _AT_THE_END], History(file, options), tell=tell)


def play_on(
    run: Run,
    parts: Iterable[Iterable[Step]],
    history: History,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Played:
    """Play steps on a running system, without a check at the end."""
    done = Counter[str]()
    began = time.monotonic()
    if run.system.cluster.standby is not None:
        run.possible.falls_behind()
    for number, step in enumerate(chain.from_iterable(parts), 1):
        _take(run, history, number, step, began)
        done[step["step"]] += 1
        if step["step"] == "check":
            tell(f"{number} steps, {run.checks['quiet points']} quiet points")
    return Played(done, run.checks, run.wrongs, time.monotonic() - began)


def _made_up(options: Options, run: Run, until: float) -> Iterator[Step]:
    generator = Generator(options.seed, troubles=options.troubles, standby=options.standby)
    while time.monotonic() < until:
        yield generator.next(run)


def _take(run: Run, history: History, number: int, step: Step, began: float) -> None:
    try:
        outcome = take(run, step)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        history.add(number, time.monotonic() - began, step, f"FOUND {what}")
        last = "\n".join(history.lines[:1] + history.lines[1:][-_SHOWN:])
        raise FoundError(f"step {number}: {what}\n{last}") from error
    history.add(number, time.monotonic() - began, step, outcome)
