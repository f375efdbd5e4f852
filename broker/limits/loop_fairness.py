"""Fairness per event-loop iteration: at most N units of work start in each, keys round-robin.

asyncio runs everything that is ready in one iteration before it polls the sockets again. Without a
bound, a client with many connections makes each iteration as long as all of its requests take, and
every other response waits that long.
"""

import asyncio
from collections import deque
from collections.abc import Hashable


class LoopFairness:
    """Admit a bounded number of units of work per iteration; waiting keys are served in turn."""

    def __init__(self, *, per_iteration: int) -> None:
        self._per_iteration = per_iteration
        self._left = per_iteration
        self._is_scheduled = False
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """Return how many units of work are waiting."""
        return sum(map(len, self._queues.values()))

    def try_admit(self) -> bool:
        """Admit one unit of work in this iteration; False if it would have to wait."""
        if self._left and not self._queues:
            self._left -= 1
            self._schedule(asyncio.get_running_loop())
            return True
        return False

    async def admit(self, key: Hashable) -> None:
        """Return in the iteration in which one more unit of this key may start."""
        if self.try_admit():
            return
        loop = asyncio.get_running_loop()
        admitted = loop.create_future()
        self._queues.setdefault(key, deque()).append(admitted)
        self._schedule(loop)
        await admitted

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._next_iteration, loop)

    def _next_iteration(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left = self._per_iteration
        while self._left and self._queues:
            key = next(iter(self._queues))
            queue = self._queues.pop(key)
            admitted = queue.popleft()
            if queue:
                # Round-robin: the key goes behind the other waiting keys.
                self._queues[key] = queue
            if not admitted.done():
                admitted.set_result(None)
                self._left -= 1
        self._is_scheduled = False
        if self._left < self._per_iteration:
            self._schedule(loop)
