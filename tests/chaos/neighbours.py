"""Users served beside another user's fault: their answers and times without it and during it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from statistics import median
from typing import Any

import httpx2

from tests.chaos.fleet import Fleet, User, token_url

PAUSE_SECONDS = 0.25
"""Seconds between two requests."""

NOISE_SECONDS = 0.25
"""Seconds that a busy machine may add to the median. A wait for the fault itself takes seconds."""


@dataclass
class Served:
    """The answers, and how long each took."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)

    def __str__(self) -> str:
        slowest = max(self.seconds)
        return f"{dict(self.answers)}, median {self.median:.3f} s, slowest {slowest:.3f} s"

    def assert_undisturbed(self, baseline: "Served") -> None:
        """Check that no request was refused, and that the median is at most doubled."""
        message = f"baseline: {baseline}; meanwhile: {self}"
        assert set(self.answers) == {"200"}, message
        assert self.median <= 2 * baseline.median + NOISE_SECONDS, message


async def serve_others(fleet: Fleet, others: Sequence[User], *, seconds: float) -> Served:
    """Request tokens of one user after another.

    Each needs the database and Google: no token lives until it is requested again.
    """
    served, users = Served(), cycle(others)
    ends = time.monotonic() + seconds
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        while time.monotonic() < ends:
            url = token_url(fleet.replicas[0], next(users))
            began = time.perf_counter()
            answer = await http.get(url, headers=fleet.authorization)
            served.seconds.append(time.perf_counter() - began)
            code = answer.json().get("code") if answer.status_code != 200 else None
            served.answers[f"{answer.status_code} {code}" if code else "200"] += 1
            await asyncio.sleep(PAUSE_SECONDS)
    return served


@asynccontextmanager
async def disturbance(*faults: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these coroutines during the block. None of them may fail."""
    tasks = [asyncio.create_task(each) for each in faults]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [each for each in results if not isinstance(each, asyncio.CancelledError)]
    assert not [each for each in failures if each is not None], failures
