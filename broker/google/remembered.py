"""A document of Google's that changes rarely: fetched once, kept a while, served on while stale."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable

logger = logging.getLogger(__name__)

MAX_AGE = timedelta(hours=1)
RETRY_WITHOUT = timedelta(seconds=2)
"""How long a failure is remembered while there is no document at all."""
RETRY_STALE = timedelta(seconds=30)
"""The same while a stale one can serve, so that few callers pay for a slow Google."""

_Document = TypeVar("_Document")


class Remembered(Generic[_Document]):
    """Fetches one at a time, whoever asks; cancelling the one who fetches lets the next try."""

    def __init__(self, name: str, fetch: Callable[[], Awaitable[_Document]], clock: Clock) -> None:
        self._name = name
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._document: _Document | None = None
        self._fetches = 0
        self._fetched_at = float("-inf")
        self._failed_at = float("-inf")
        self._failure = "connect"

    async def get(self) -> _Document:
        """The document, at most an hour old, or older while Google can't be reached.

        Raises `GoogleUnavailable` if there never was one.
        """
        held = self._document
        if held is not None and (
            self._is_younger(MAX_AGE) or self._lock.locked() or self._failed_within(RETRY_STALE)
        ):
            return held
        try:
            return await self._fetch_unless_newer(seen=self._fetches)
        except GoogleUnavailable as error:
            if held is None:
                raise
            logger.warning(
                "a document of Google's could not be renewed; the old one serves on",
                extra={"document": self._name, "reason": error.reason},
            )
            return held

    async def at_most(
        self, max_age: timedelta, *, retry_after: timedelta = RETRY_WITHOUT
    ) -> _Document:
        """The document, never older than that. Raises `GoogleUnavailable`.

        A failure is remembered for `retry_after`.
        """
        held = self._document
        if held is not None and self._is_younger(max_age):
            return held
        return await self._fetch_unless_newer(seen=self._fetches, retry_after=retry_after)

    def _is_younger(self, age: timedelta) -> bool:
        return self._clock.epoch() - self._fetched_at < age.total_seconds()

    def _failed_within(self, span: timedelta) -> bool:
        # A clock set back must not make a failure last until it has caught up.
        return 0 <= self._clock.epoch() - self._failed_at < span.total_seconds()

    async def _fetch_unless_newer(
        self, *, seen: int, retry_after: timedelta = RETRY_WITHOUT
    ) -> _Document:
        """Fetch, unless that was done while this caller, who saw `seen` fetches, had to wait."""
        async with self._lock:
            if self._document is not None and self._fetches > seen:
                return self._document
            if self._failed_within(retry_after):
                raise GoogleUnavailable(self._failure)
            try:
                document = await self._fetch()
            except GoogleUnavailable as error:
                self._failed_at, self._failure = self._clock.epoch(), error.reason
                raise
            self._document, self._fetched_at = document, self._clock.epoch()
            self._fetches += 1
            return document
