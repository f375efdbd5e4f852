"""Turns: so many at a time for each name, the next ones in a line that has an end.

Whoever has one name takes nothing from those of another, however much it asks for.
"""

import asyncio

from broker.database.shares import KeyedSemaphore


class OverloadedError(Exception):
    """The line is too long, or moves too slowly."""


class Turns:
    """Nothing is held for names that nobody has a turn of."""

    def __init__(self, *, at_once: int, waiting: int, patience_seconds: float) -> None:
        """`waiting` is how many may stand in line, each for so many seconds."""
        self._at_once = at_once
        self._waiting = waiting
        self._patience_seconds = patience_seconds
        self._taken = KeyedSemaphore()

    def __len__(self) -> int:
        """Names that have a turn now."""
        return len(self._taken)

    def take_now(self, name: str) -> bool:
        """Whether one of this name's turns is free; if so, it is taken, until `give_back`."""
        return self._taken.acquire_now(name, self._at_once)

    async def take(self, name: str) -> None:
        """One of this name's turns, until `give_back`. Raises `OverloadedError`."""
        if self.take_now(name):
            return
        if self._taken.waiting(name) >= self._waiting:
            raise OverloadedError
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._taken.acquire(name, self._at_once)
        except TimeoutError:
            raise OverloadedError from None

    def give_back(self, name: str) -> None:
        """Let the next one have it."""
        self._taken.release(name)
