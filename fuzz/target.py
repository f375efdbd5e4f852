"""What is tried: a name, good samples to begin with, and a check that says when something is wrong.

A check returns if all is well; anything that it raises is a find.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fuzz.choices import BytesRandom, mangled

_Result = TypeVar("_Result")


class Find(AssertionError):  # noqa: N818  (named for what it is)
    """The broker did what it must not."""


@dataclass(frozen=True)
class Target:
    """Something that takes bad input."""

    name: str
    check: Callable[[bytes], None]
    """Of raw bytes, as a coverage-guided fuzzer makes them."""
    play: Callable[[random.Random], None]
    """The same, of choices."""
    samples: Sequence[bytes] = ()
    longest: int = 4096
    """Bytes of an input."""


def of_bytes(
    name: str, check: Callable[[bytes], None], samples: Sequence[bytes], *, longest: int = 4096
) -> Target:
    """A parser: what is tried is what it reads."""
    return Target(
        name,
        check,
        lambda rng: check(mangled(rng, samples)[: 4 * longest]),
        samples,
        longest,
    )


def of_choices(name: str, play: Callable[[random.Random], None]) -> Target:
    """A route: what is tried is made up from choices."""
    return Target(name, lambda data: play(BytesRandom(data)), play, (), 1024)


def at_once(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """What a coroutine gives that never has to wait, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    coroutine.close()
    raise Find("it waited for something")


def must(condition: object, said: str) -> None:
    """Raises `Find` unless it holds."""
    if not condition:
        raise Find(said)
