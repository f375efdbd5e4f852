"""Others who are served beside somebody's trouble: how they fare, in peace and meanwhile."""

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
"""From one question to the next."""

NOISE_SECONDS = 0.25
"""What a busy machine may add to the median: a wait for the trouble itself takes seconds."""


@dataclass
class Served:
    """What others got, and how long it took."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.seconds)

    def __str__(self) -> str:
        slowest = max(self.seconds)
        return f"{dict(self.answers)}, median {self.median:.3f} s, slowest {slowest:.3f} s"

    def assert_as_in(self, peace: "Served") -> None:
        """Nobody was refused, and it took no more than twice as long."""
        said = f"in peace: {peace}; meanwhile: {self}"
        assert set(self.answers) == {"200"}, said
        assert self.median <= 2 * peace.median + NOISE_SECONDS, said


async def serve_others(fleet: Fleet, others: Sequence[User], *, seconds: float) -> Served:
    """Fetch tokens of one after another: each is looked up in the database and fetched from Google,
    for none that was fetched before lives so long.
    """
    served, turns = Served(), cycle(others)
    ends = time.monotonic() + seconds
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        while time.monotonic() < ends:
            url = token_url(fleet.replicas[0], next(turns))
            began = time.perf_counter()
            answer = await http.get(url, headers=fleet.authorization)
            served.seconds.append(time.perf_counter() - began)
            code = answer.json().get("code") if answer.status_code != 200 else None
            served.answers[f"{answer.status_code} {code}" if code else "200"] += 1
            await asyncio.sleep(PAUSE_SECONDS)
    return served


@asynccontextmanager
async def going_on(*trouble: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Trouble, made by these coroutines for as long as this lasts; none of them may fail."""
    tasks = [asyncio.create_task(each) for each in trouble]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [each for each in results if not isinstance(each, asyncio.CancelledError)]
    assert not [each for each in faults if each is not None], faults
