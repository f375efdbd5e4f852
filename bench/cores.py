"""Which processor core runs what, so that server and load generator don't take turns on one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for whichever server is measured, another for all the rest."""

    server: int
    others: int

    @classmethod
    def pick(cls) -> "Cores | None":
        """Two of ours; nothing where there is only one, or where cores can't be chosen."""
        if not hasattr(os, "sched_getaffinity"):
            return None
        ours = sorted(os.sched_getaffinity(0))
        return cls(server=ours[0], others=ours[1]) if len(ours) > 1 else None


@contextmanager
def starting_on(core: int | None) -> Iterator[None]:
    """Processes started within inherit the core; the caller itself goes back to where it was."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
