"""The two ways of trying: choices that Hypothesis draws and shrinks, and bytes led by coverage.

Both end with the first find, and say what it was.
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
    """Ends Hypothesis at once: whatever else a check raises, it would try again and shrink."""


@dataclass(frozen=True)
class Tried:
    """How often a target was tried, and how long it took."""

    tries: int
    seconds: float


def try_with_properties(target: Target, tries: int, *, seconds: float, number: int) -> Tried:
    """Have Hypothesis draw that many, or as many as the time allows. Raises what a check raises."""
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
    """Choices of a seeded generator: many more in the same time, and nothing is shrunk."""
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
    """Have libFuzzer lead the way to new code; ends the process, and says how it went on stderr.

    What it is to see has to be imported under `atheris.instrument_imports`.
    """
    import atheris  # noqa: PLC0415  (there is no such package for every machine)

    corpus = Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    for place, sample in enumerate(target.samples):
        (corpus / f"sample-{place}").write_bytes(sample)
    if not target.samples:
        for place in range(16):
            content = random.Random(place).randbytes(16 * (place + 1))
            (corpus / f"sample-{place}").write_bytes(content)
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
    # libFuzzer ends the process by way of Python's own end, which would wait for a place's threads.
    threading._shutdown = lambda: None  # type: ignore[attr-defined]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.check)
    atheris.Fuzz()
