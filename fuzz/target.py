"""Targets of fuzzing: a name, valid samples to start from, and a check.

A check returns normally; any exception that it raises is a finding.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fuzz.choices import BytesRandom, mangled

_Result = TypeVar("_Result")


class Find(AssertionError):  # noqa: N818  (the term of fuzzing)
    """The broker did something that it must never do."""


@dataclass(frozen=True)
class Target:
    """Code that gets bad input."""

    name: str
    check: Callable[[bytes], None]
    """Checks raw bytes, as a coverage-guided fuzzer generates them."""
    play: Callable[[random.Random], None]
    """Checks an input made from choices."""
    samples: Sequence[bytes] = ()
    longest: int = 4096
    """The maximum length of an input, in bytes."""


def of_bytes(
    name: str, check: Callable[[bytes], None], samples: Sequence[bytes], *, longest: int = 4096
) -> Target:
    """Return a target for a parser, whose input is fuzzed directly."""
    return Target(
        name,
        check,
        lambda rng: check(mangled(rng, samples)[: 4 * longest]),
        samples,
        longest,
    )


def of_choices(name: str, play: Callable[[random.Random], None]) -> Target:
    """Return a target for a route, whose requests are generated from choices."""
    return Target(name, lambda data: play(BytesRandom(data)), play, (), 1024)


def run_sync(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of a coroutine that never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    coroutine.close()
    raise Find("the coroutine waits")


def must(condition: object, said: str) -> None:
    """Raise `Find` if the condition is false."""
    if not condition:
        raise Find(said)
