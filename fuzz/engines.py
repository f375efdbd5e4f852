"""The engines: choices that Hypothesis draws and shrinks, and coverage-guided bytes.

Both stop at the first finding and print it.
"""

import os
import random
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz.target import Target

_TOO_SLOW_SECONDS = 10


class _OutOfTimeError(KeyboardInterrupt):
    """Stops Hypothesis immediately; it would repeat and shrink any other exception."""


@dataclass(frozen=True)
class Tried:
    """The number of inputs, and the time they took."""

    tries: int
    seconds: float


def try_with_properties(target: Target, tries: int, *, seconds: float, number: int) -> Tried:
    """Let Hypothesis draw inputs until the count or the time is up. Raises what a check raises."""
    count, began = 0, time.monotonic()

    @seed(number)
    @settings(
        max_examples=tries,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(note_method_calls=False, use_true_random=False))
    def play(rng: random.Random) -> None:
        nonlocal count
        if time.monotonic() - began > seconds:
            raise _OutOfTimeError
        target.play(rng)
        count += 1

    with suppress(_OutOfTimeError):
        play()
    return Tried(count, time.monotonic() - began)


def try_with_seeds(target: Target, tries: int, *, seconds: float, number: int) -> Tried:
    """Use a seeded generator: many more inputs in the same time, without shrinking."""
    began = time.monotonic()
    for done in range(tries):
        if time.monotonic() - began > seconds:
            return Tried(done, time.monotonic() - began)
        name = f"{number}.{done}"
        try:
            target.play(random.Random(name))
        except Exception as error:
            error.add_note(f"found with the seed {name!r} of {target.name}")
            raise
    return Tried(tries, time.monotonic() - began)


def try_with_coverage(target: Target, tries: int, *, seconds: float, number: int) -> None:
    """Run libFuzzer, which searches for inputs that reach new code. It ends the process.

    Code under test must be imported within `atheris.instrument_imports`. Progress goes to stderr.
    """
    import atheris  # noqa: PLC0415  (the package does not exist for every platform)

    corpus = Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    for index, sample in enumerate(target.samples):
        (corpus / f"sample-{index}").write_bytes(sample)
    if not target.samples:
        for index in range(16):
            content = random.Random(index).randbytes(16 * (index + 1))
            (corpus / f"sample-{index}").write_bytes(content)
    options = [
        f"-runs={tries}",
        f"-max_total_time={int(seconds)}",
        f"-max_len={target.longest}",
        f"-timeout={_TOO_SLOW_SECONDS}",
        f"-seed={number + 1}",
        "-rss_limit_mb=0",
        "-len_control=0",
        "-use_value_profile=0",
        f"-artifact_prefix={tempfile.gettempdir()}{os.sep}fuzz-found-",
    ]
    # libFuzzer ends the process through Python's exit, which would wait for a broker's threads.
    threading._shutdown = lambda: None  # type: ignore[attr-defined]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.check)
    atheris.Fuzz()
