"""Single flight: concurrent callers of one key share one call."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _AbandonedError(Exception):
    """The caller that ran the call itself was cancelled."""


class SingleFlight(Generic[K, V]):
    """Run at most one call per key at a time; callers that arrive meanwhile get its result.

    Cancelling a caller never cancels the others. The call has the context variables of the caller
    that started it, so one that matters, such as the share of the database connections, belongs in
    the key. If the call raises, every caller gets the same exception object. Nothing is cached: a
    finished call is gone.
    """

    def __init__(self) -> None:
        self._current: dict[K, asyncio.Future[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()
        """All that `start` started and that have not finished, forgotten ones included."""

    def __contains__(self, key: K) -> bool:
        """True while a call that a new caller would join is running."""
        flight = self._current.get(key)
        return flight is not None and not flight.done()

    async def do(self, key: K, call: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return the result of the running call, or of a new one. Raises what it raises.

        The call is a task of its own, and goes on even if every caller is cancelled. Raises
        `CancelledError` also if `aclose` cancels the call.
        """
        return await asyncio.shield(self.start(key, call))

    def start(self, key: K, call: Callable[[], Coroutine[Any, Any, V]]) -> asyncio.Future[V]:
        """Return the running call's future, or start a call, without waiting.

        For a caller with a timeout: `asyncio.wait({future}, timeout=…)`. Awaiting the future
        directly would cancel the call together with the caller; `do` does not.
        """
        flight = self._current.get(key)
        if flight is None or flight.done():
            task = asyncio.create_task(call())
            flight = self._current[key] = task
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._finished(key, done))
        return flight

    async def do_inline(self, key: K, call: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Do the same without a task: the first caller runs the call itself.

        If it is cancelled, one of the callers that wait for it runs the call again. A task costs
        some 8 µs, so this is for hot paths. Not to be mixed with `do` and `start` on one key.
        """
        while (flight := self._current.get(key)) is not None and not flight.done():
            try:
                return await asyncio.shield(flight)
            except _AbandonedError:
                continue
        flight = self._current[key] = asyncio.get_running_loop().create_future()
        try:
            result = await call()
        except Exception as error:
            _fail(flight, error)
            raise
        except BaseException:
            _fail(flight, _AbandonedError())
            raise
        else:
            flight.set_result(result)
            return result
        finally:
            if self._current.get(key) is flight:
                del self._current[key]

    def forget(self, key: K) -> None:
        """Let the next caller start a new call; the running one still answers its callers."""
        self._current.pop(key, None)

    async def aclose(self) -> None:
        """Cancel all calls that run as tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _finished(self, key: K, task: asyncio.Task[V]) -> None:
        self._tasks.discard(task)
        if self._current.get(key) is task:
            del self._current[key]
        if not task.cancelled():
            # Retrieved, or asyncio would log an exception for which no caller is left.
            task.exception()


def _fail(flight: asyncio.Future[V], error: Exception) -> None:
    flight.set_exception(error)
    # Retrieved, or asyncio would log it when no other caller waits.
    flight.exception()
