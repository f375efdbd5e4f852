"""An event loop whose timers run when a test says so, and not when their time has come."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvloop

_LONG_SECONDS = 1.0
"""Timers of at least so much are the test's to fire: they are for those who are slow."""


class TimedLoop(uvloop.Loop):
    """Long timers can be made to be due."""

    def __init__(self) -> None:
        super().__init__()
        self._long: list[
            tuple[float, asyncio.TimerHandle, Callable[..., object], tuple[Any, ...]]
        ] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As ever, but that it is noted for `fire` if it is long."""
        handle = super().call_later(delay, callback, *args, context=context)
        if delay >= _LONG_SECONDS:
            self._long.append((delay, handle, callback, args))
        return handle

    def fire(self, *, up_to: float = float("inf")) -> None:
        """Have all run now that were set before, for no longer than so many seconds.

        To be called in the loop's own thread.
        """
        due = [each for each in self._long if each[0] <= up_to]
        self._long = [each for each in self._long if each[0] > up_to]
        for _, handle, callback, args in due:
            if not handle.cancelled():
                handle.cancel()
                callback(*args)

    def let_pass(self, seconds: float) -> None:
        """The same from another thread; returns when what followed at once has run, too."""
        asyncio.run_coroutine_threadsafe(self._pass(seconds), self).result(60)

    async def _pass(self, seconds: float) -> None:
        self.fire(up_to=seconds)
        for _ in range(5):
            await asyncio.sleep(0)
