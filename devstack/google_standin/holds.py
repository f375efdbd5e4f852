"""Requests that wait until a test lets them go on: the way to test a race without sleeping."""

import asyncio
import threading
from collections import Counter, defaultdict


class Holds:
    """Waiting requests by name. `Fault.hold(name)` sends a request here."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: Counter[str] = Counter()
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]]
        self._waiting = defaultdict(list)

    async def wait(self, name: str, *, at_most: float | None = None) -> None:
        """Called by the request itself; `at_most` in seconds."""
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._changed:
            self._waiting[name].append(waiting)
            self._arrived[name] += 1
            self._changed.notify_all()
        try:
            await asyncio.wait_for(waiting[1].wait(), at_most)
        except TimeoutError:
            with self._changed:
                # A release at this very moment has taken it off the list already.
                if waiting in self._waiting[name]:
                    self._waiting[name].remove(waiting)

    def wait_until_held(
        self,
        name: str = "hold",
        *,
        requests: int = 1,
        timeout: float = 10,
    ) -> None:
        """Block until that many requests have arrived, ever. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived[name] >= requests, timeout):
                raise TimeoutError(f"no request was held at {name!r}")

    def release(self, name: str = "hold") -> int:
        """Let all who wait here go on; gives how many there were."""
        with self._changed:
            waiting = self._waiting.pop(name, [])
        for loop, gate in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(gate.set)
        return len(waiting)

    def held(self) -> dict[str, int]:
        """How many wait at each name."""
        with self._changed:
            return {name: len(waiting) for name, waiting in self._waiting.items() if waiting}

    def release_all(self) -> None:
        for name in self.held():
            self.release(name)
        with self._changed:
            self._arrived.clear()
