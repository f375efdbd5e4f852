"""Requests that wait until a test releases them: tests of races need no sleep."""

import asyncio
import threading
from collections import Counter, defaultdict


class Holds:
    """Held requests, by the name that `Fault.hold(name)` gives."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: Counter[str] = Counter()
        self._waiting: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]]
        self._waiting = defaultdict(list)

    async def wait(self, name: str, *, at_most: float | None = None) -> None:
        """Hold the calling request, for `at_most` seconds."""
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._changed:
            self._waiting[name].append(waiting)
            self._arrived[name] += 1
            self._changed.notify_all()
        try:
            await asyncio.wait_for(waiting[1].wait(), at_most)
        except TimeoutError:
            with self._changed:
                # A concurrent release may have removed it already.
                if waiting in self._waiting[name]:
                    self._waiting[name].remove(waiting)

    def wait_until_held(
        self,
        name: str = "hold",
        *,
        requests: int = 1,
        timeout: float = 10,
    ) -> None:
        """Block until this many requests have arrived in total. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived[name] >= requests, timeout):
                raise TimeoutError(f"no request was held at {name!r}")

    def release(self, name: str = "hold") -> int:
        """Release all requests held under this name; return their number."""
        with self._changed:
            waiting = self._waiting.pop(name, [])
        for loop, gate in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(gate.set)
        return len(waiting)

    def held(self) -> dict[str, int]:
        """Return the number of held requests by name."""
        with self._changed:
            return {name: len(waiting) for name, waiting in self._waiting.items() if waiting}

    def release_all(self) -> None:
        for name in self.held():
            self.release(name)
        with self._changed:
            self._arrived.clear()
