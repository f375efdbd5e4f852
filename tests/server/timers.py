"""An event loop whose long timers run when a test says so."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvloop

_LONG_SECONDS = 1.0
"""Timers of at least this length are fired by the test."""


class TimedLoop(uvloop.Loop):
    """Lets a test fire the long timers."""

    def __init__(self) -> None:
        super().__init__()
        self._long: list[
            tuple[float, asyncio.TimerHandle, Callable[..., object], tuple[Any, ...]]
        ] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Note a long timer for `fire`."""
        handle = super().call_later(delay, callback, *args, context=context)
        if delay >= _LONG_SECONDS:
            self._long.append((delay, handle, callback, args))
        return handle

    def fire(self, *, up_to: float = float("inf")) -> None:
        """Run all timers set before, of at most `up_to` seconds. Call it in the loop's thread."""
        due = [each for each in self._long if each[0] <= up_to]
        self._long = [each for each in self._long if each[0] > up_to]
        for _, handle, callback, args in due:
            if not handle.cancelled():
                handle.cancel()
                callback(*args)

    def let_pass(self, seconds: float) -> None:
        """Do the same from another thread; return when what follows immediately has run, too."""
        asyncio.run_coroutine_threadsafe(self._pass(seconds), self).result(60)

    async def _pass(self, seconds: float) -> None:
        self.fire(up_to=seconds)
        for _ in range(5):
            await asyncio.sleep(0)
