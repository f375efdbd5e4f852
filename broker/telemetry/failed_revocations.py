"""Failed revocations and security events: logged, counted, and reported by readiness until done.

They may be done by any replica later, so each is checked in the database.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Counter

from broker.database.outages import StorageUnavailable

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 8.0
"""For an attempt with all its waits. With a second to close the connection, the response and the
report of the failure come within ten seconds."""

REMEMBERED_SECONDS = 3600.0
"""The caller got 503. If it does not retry within this time, only the log shows the failure."""

REMEMBERED_AT_MOST = 1000

IsDone = Callable[[], Awaitable[bool]]


class RevocationsFailedError(Exception):
    """Some are not carried out yet. The message has their number, and no user."""


@dataclass(frozen=True, slots=True)
class _Failed:
    at: float
    """Seconds of the monotonic clock."""
    is_done: IsDone


class FailedRevocations:
    """The revocations and security events that failed on this replica and are not done since."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failed: dict[Hashable, _Failed] = {}

    @asynccontextmanager
    async def reporting(
        self,
        key: Hashable,
        message: str,
        *,
        about: Mapping[str, object],
        counted: Sequence[Counter],
        is_done: IsDone,
    ) -> AsyncIterator[None]:
        """Run an attempt in this context; a failure is logged, counted and remembered under `key`.

        `about` has the log event's id and its fields; user ids in it must be cut. Raises
        `StorageUnavailable` after `DEADLINE_SECONDS`.
        """
        try:
            async with _deadline():
                yield
        except Exception as error:
            for counter in counted:
                counter.inc()
            self._remember(key, is_done)
            # Without traceback: the route answers the request, and logs a defect.
            reason = f"{type(error).__name__}: {error}"
            logger.error(message, extra={**about, "reason": reason})  # noqa: TRY400
            raise
        self._failed.pop(key, None)

    def _remember(self, key: Hashable, is_done: IsDone) -> None:
        # Move it to the end: the oldest is dropped first.
        self._failed.pop(key, None)
        self._failed[key] = _Failed(self._monotonic(), is_done)
        if len(self._failed) > REMEMBERED_AT_MOST:
            del self._failed[next(iter(self._failed))]

    async def ping(self) -> None:
        """Raise `RevocationsFailedError` while any is not carried out, or what `is_done` raises."""
        horizon = self._monotonic() - REMEMBERED_SECONDS
        for key, failed in list(self._failed.items()):
            is_over = failed.at < horizon or await failed.is_done()
            # It may have failed again during the check.
            if is_over and self._failed.get(key) is failed:
                del self._failed[key]
        if self._failed:
            raise RevocationsFailedError(f"{len(self._failed)} not carried out; the log names them")


@asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    limit = asyncio.timeout(DEADLINE_SECONDS)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise StorageUnavailable("no answer in time") from error
