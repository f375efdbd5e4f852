"""What one caller may take of what all callers share; beyond it, that caller alone is refused.

Everything here counts in this process only: with three replicas, a caller has three times as much.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from broker.callers.model import Caller
from broker.database.shares import OF_A_CALLER
from broker.limits.concurrency import OverloadedError, Turns
from broker.limits.loop_fairness import Rounds
from broker.telemetry.metrics import Metrics
from broker.web.problems import Problem, rate_limited

READS_AT_ONCE = OF_A_CALLER
"""Requests of one caller that need the database, or each of which is a look at it."""

READS_OF_A_USER_AT_ONCE = 2
"""Of those, requests of one caller about one user, or one link: a user whose lock somebody keeps is
in the way of none of the caller's other users."""

REFRESHES_AT_ONCE = 48
"""Of one caller, for single requests, of all that there may be at Google."""

BATCH_REFRESHES_AT_ONCE = 48
"""The same for its batches, all together: they delay none of its single requests."""

REFRESHES_OF_A_GRANT_AT_ONCE = 4
"""Of each of those, for one grant: an account that Google is slow for delays no other one."""

BATCHES_AT_ONCE = 8
"""Of one caller, from before their bodies are read until their answers have been."""

PORTIONS_A_ROUND = 1
"""Of the work on batches, in one round of the event loop; the callers in turn."""

READS_WAITING = 1000
REFRESHES_WAITING = 4000
BATCHES_WAITING = 100

READ_PATIENCE_SECONDS = 5.0
REFRESH_PATIENCE_SECONDS = 15.0

PAUSE_SECONDS = 0.5
"""How long a refusal is held back: who asks again at once does not get more of the processor."""

_OVERLOAD_RETRY_SECONDS = 1
_SAID_AGAIN_SECONDS = 60.0
NOBODY: Final = "-"
"""Stands for all strangers in metrics; no caller can be called so."""

logger = logging.getLogger(__name__)


class CallerLimits:
    """Rate and shares of each caller."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds, and never goes back."""
        self._refused = metrics.rate_limited
        self._clock = clock
        self._said_at: dict[str, float] = {}
        self.refreshes = _refreshes(REFRESHES_AT_ONCE)
        self.batch_refreshes = _refreshes(BATCH_REFRESHES_AT_ONCE)
        self.reads = Turns(
            at_once=READS_AT_ONCE, waiting=READS_WAITING, patience_seconds=READ_PATIENCE_SECONDS
        )
        self._reads_of_users = Turns(
            at_once=READS_OF_A_USER_AT_ONCE,
            waiting=READS_WAITING,
            patience_seconds=READ_PATIENCE_SECONDS,
        )
        self.portions = Rounds(each=PORTIONS_A_ROUND)
        self._batches = Turns(
            at_once=BATCHES_AT_ONCE, waiting=BATCHES_WAITING, patience_seconds=READ_PATIENCE_SECONDS
        )

    async def admit(self, caller: Caller) -> None:
        """Count one request. Raises `Problem` 429, a little later, if it is one too many."""
        if caller.bucket is not None:
            await self._insist(caller, caller.bucket.take(self._clock()))

    async def charge(self, caller: Caller, count: int) -> None:
        """Count so many more for one that was admitted. Raises `Problem` 429."""
        if caller.bucket is not None and count > 0:
            await self._insist(caller, caller.bucket.charge(self._clock(), count))

    async def begin_batch(self, caller: Caller) -> Callable[[], None]:
        """One of the caller's batches; call what is returned when its answer has been read.

        Raises `Problem` 429.
        """
        return await self._begin(self._batches, caller, caller.name)

    async def begin_work(self, caller: Caller, about: str) -> Callable[[], None]:
        """A turn at the database for a whole request; call what is returned when it has ended.

        `about` is the user or the link that the request is about. Raises `Problem` 429.
        """
        end_for_user = await self._begin(self._reads_of_users, caller, f"{caller.name} {about}")
        try:
            end = await self._begin(self.reads, caller, caller.name)
        except BaseException:
            end_for_user()
            raise

        def end_both() -> None:
            end()
            end_for_user()

        return end_both

    def overloaded(self, caller: Caller) -> Problem:
        """The refusal of what found no turn in time."""
        self._note(caller, "overload")
        return rate_limited(
            _OVERLOAD_RETRY_SECONDS, "Too many requests of this caller are under way."
        )

    async def _begin(self, turns: Turns, caller: Caller, name: str) -> Callable[[], None]:
        try:
            await turns.take(name)
        except OverloadedError:
            raise await self._overloaded(caller) from None
        return lambda: turns.give_back(name)

    async def _overloaded(self, caller: Caller) -> Problem:
        problem = self.overloaded(caller)
        await asyncio.sleep(PAUSE_SECONDS)
        return problem

    async def _insist(self, caller: Caller, wait: float) -> None:
        if wait > 0:
            self._note(caller, "rate")
            await asyncio.sleep(PAUSE_SECONDS)
            raise rate_limited(math.ceil(wait))

    def _note(self, caller: Caller, limit: str) -> None:
        """One more, and now and then a line for the operator."""
        self._refused.labels(caller.name, limit).inc()
        now = self._clock()
        if now - self._said_at.get(caller.name, float("-inf")) >= _SAID_AGAIN_SECONDS:
            self._said_at[caller.name] = now
            logger.warning(
                "a caller asks for more than it may", extra={"caller": caller.name, "limit": limit}
            )


def _refreshes(at_once: int) -> Turns:
    return Turns(
        at_once=at_once, waiting=REFRESHES_WAITING, patience_seconds=REFRESH_PATIENCE_SECONDS
    )
