"""A value that is fetched over the network and cached; a failure is cached for a shorter time."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from broker.clock import Clock
from broker.single_flight import SingleFlight

MAX_AGE = timedelta(hours=1)
RETRY_WITHOUT = timedelta(seconds=2)
"""Pause after a failed fetch while no value is cached."""
RETRY_STALE = timedelta(seconds=30)
"""Pause after a failed fetch while a stale value is cached; few callers wait for a slow server."""

_ONLY: Final = None
_NEVER = float("-inf")

_Value = TypeVar("_Value")


class ServerUnavailable(Exception):  # noqa: N818  (named for the state)
    """A server cannot be used now; `reason` is one of a small, fixed set of labels."""

    reason: str


class CachedFetch(Generic[_Value]):
    """One value, its last failure, and a single flight of fetches.

    Cancelling a caller does not cancel the fetch.
    """

    def __init__(
        self,
        fetch: Callable[[], Coroutine[Any, Any, _Value]],
        clock: Clock,
        *,
        on_failure: Callable[[ServerUnavailable | None], None],
    ) -> None:
        """`on_failure` is called when the failure changes, and with None after a recovery."""
        self._fetch = fetch
        self._clock = clock
        self._on_failure = on_failure
        self._flight: SingleFlight[None, _Value] = SingleFlight()
        self._fetched_at = self._tried_at = _NEVER
        self.value: _Value | None = None
        self.failure: ServerUnavailable | None = None
        """Raised by the last fetch; None if it succeeded, or none was made."""

    @property
    def is_fetching(self) -> bool:
        """True while a fetch is running."""
        return _ONLY in self._flight

    async def get(self) -> _Value:
        """Return the value, at most an hour old; an older one while the server is unavailable.

        Raises `ServerUnavailable` if no value was ever fetched.
        """
        cached = self.value
        if cached is not None and (
            self._is_younger_than(MAX_AGE)
            or self.is_fetching
            or (self.failure is not None and self.was_tried_within(RETRY_STALE))
        ):
            return cached
        try:
            return await self._fetch_or_fail(RETRY_WITHOUT)
        except ServerUnavailable:
            if cached is None:
                raise
            return cached

    async def get_young(self, max_age: timedelta, *, retry_after: timedelta) -> _Value:
        """Return the value, never older than `max_age`. Raises `ServerUnavailable`.

        A failure is cached for `retry_after`.
        """
        if self.value is not None and self._is_younger_than(max_age):
            return self.value
        return await self._fetch_or_fail(retry_after)

    async def fetch(self) -> _Value:
        """Fetch now, or join the running fetch. Raises `ServerUnavailable`."""
        return await self._flight.do(_ONLY, self._run)

    def was_tried_within(self, span: timedelta) -> bool:
        """True if the last fetch began or ended less than `span` ago."""
        # A clock set back does not delay the next fetch until it has caught up.
        return 0 <= self._clock.epoch() - self._tried_at < span.total_seconds()

    async def aclose(self) -> None:
        """Cancel the running fetch."""
        await self._flight.aclose()

    async def _fetch_or_fail(self, retry_after: timedelta) -> _Value:
        if self.failure is not None and not self.is_fetching and self.was_tried_within(retry_after):
            raise self.failure.with_traceback(None)
        return await self.fetch()

    def _is_younger_than(self, age: timedelta) -> bool:
        return self._clock.epoch() - self._fetched_at < age.total_seconds()

    async def _run(self) -> _Value:
        self._tried_at = self._clock.epoch()
        try:
            value = await self._fetch()
        except ServerUnavailable as error:
            self._record(error)
            raise
        else:
            self.value, self._fetched_at = value, self._clock.epoch()
            self._record(None)
            return value
        finally:
            self._tried_at = self._clock.epoch()

    def _record(self, failure: ServerUnavailable | None) -> None:
        before, self.failure = self.failure, failure
        if (failure and failure.reason) != (before and before.reason):
            self._on_failure(failure)
