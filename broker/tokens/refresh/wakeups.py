"""Lets those who wait for another replica's refresh sleep until its notice comes."""

import asyncio
from uuid import UUID


class Wakeups:
    """One event per grant that somebody waits for."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Event]] = {}

    def wake(self, grant_id: UUID) -> None:
        """The grant's refresh has ended, or the grant has changed."""
        for event in self._waiting.get(grant_id, ()):
            event.set()

    async def wait(self, grant_id: UUID, *, seconds: float) -> None:
        """Return when the grant's refresh ends; after so long in any case: notices get lost."""
        event = asyncio.Event()
        self._waiting.setdefault(grant_id, set()).add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            waiting = self._waiting[grant_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[grant_id]
