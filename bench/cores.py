"""Pins processes to CPU cores, so that server and load generator do not share one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for the measured server, another for everything else."""

    server: int
    others: int

    @classmethod
    def pick(cls) -> "Cores | None":
        """Return two cores; None if there is only one, or pinning is not possible."""
        if not hasattr(os, "sched_getaffinity"):
            return None
        own = sorted(os.sched_getaffinity(0))
        return cls(server=own[0], others=own[1]) if len(own) > 1 else None


@contextmanager
def starting_on(core: int | None) -> Iterator[None]:
    """Start processes on this core; the caller's own affinity is restored afterwards."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
