"""Revocations and security events that could not be carried out: reported at once, and until they
are. Whether that has happened, at whichever replica, is asked of who knows, never assumed.
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
"""An attempt as a whole, with all that it waits for: with a second to give up the connection, it is
answered and reported within ten."""

REMEMBERED_SECONDS = 3600.0
"""Whoever asked was told, and does not ask again: then the log is all that is left of it."""

REMEMBERED_AT_MOST = 1000

IsDone = Callable[[], Awaitable[bool]]


class RevocationsFailedError(Exception):
    """Some were not carried out yet; the message says how many, and names nobody."""


@dataclass(frozen=True, slots=True)
class _Failed:
    at: float
    is_done: IsDone


class FailedRevocations:
    """What this replica answered with a failure since somebody asked for it."""

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
        """Around the attempt, which has failed with `StorageUnavailable` if it takes too long.

        `about` goes to the log, so user ids in it are cut.
        """
        try:
            async with _deadline():
                yield
        except Exception as error:
            for counter in counted:
                counter.inc()
            self._remember(key, is_done)
            # Not with the traceback: whoever asked is answered, and a defect is logged there.
            reason = f"{type(error).__name__}: {error}"
            logger.error(message, extra={**about, "reason": reason})  # noqa: TRY400
            raise
        self._failed.pop(key, None)

    def _remember(self, key: Hashable, is_done: IsDone) -> None:
        # Last in line again: the oldest goes first.
        self._failed.pop(key, None)
        self._failed[key] = _Failed(self._monotonic(), is_done)
        if len(self._failed) > REMEMBERED_AT_MOST:
            del self._failed[next(iter(self._failed))]

    async def ping(self) -> None:
        """Raises `RevocationsFailedError` while any is not carried out, and what asking raises."""
        horizon = self._monotonic() - REMEMBERED_SECONDS
        for key, failed in list(self._failed.items()):
            is_over = failed.at < horizon or await failed.is_done()
            # It may have failed again meanwhile.
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
