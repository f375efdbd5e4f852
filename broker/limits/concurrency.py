"""Concurrency limit per key, with a bounded FIFO queue.

A key, such as a caller's name, takes nothing from the other keys, however many requests it makes.
"""

import asyncio

from broker.database.shares import KeyedSemaphore


class OverloadedError(Exception):
    """The key's queue is full, or a place was not free within the timeout."""


class ConcurrencyLimit:
    """At most `limit` holders per key. An unused key takes no memory."""

    def __init__(self, *, limit: int, queue: int, timeout_seconds: float) -> None:
        """`queue` bounds the waiting requests per key; each waits for at most the timeout."""
        self._limit = limit
        self._queue = queue
        self._timeout_seconds = timeout_seconds
        self._semaphore = KeyedSemaphore()

    def __len__(self) -> int:
        """Return the number of keys that have a holder now."""
        return len(self._semaphore)

    def try_acquire(self, key: str) -> bool:
        """Acquire a place without waiting; False if none is free. End it with `release`."""
        return self._semaphore.try_acquire(key, self._limit)

    async def acquire(self, key: str) -> None:
        """Acquire a place, in FIFO order. End it with `release`. Raises `OverloadedError`."""
        if self.try_acquire(key):
            return
        if self._semaphore.waiting(key) >= self._queue:
            raise OverloadedError
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._semaphore.acquire(key, self._limit)
        except TimeoutError:
            raise OverloadedError from None

    def release(self, key: str) -> None:
        """Give the place to the first in the queue."""
        self._semaphore.release(key)
