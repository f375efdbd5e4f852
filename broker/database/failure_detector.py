"""A failure detector: distinguishes a PostgreSQL that does not respond from one that is slow.

A stopped server refuses connections immediately. One that hangs, or whose packets are lost, lets
every client wait for its full time-out. So the detector sends a simple query on a connection of its
own. While neither that query nor any other is answered, other clients fail immediately. The probe
is repeated until it is answered. Opening a connection takes many steps of this process, which may
lack CPU time itself: so an answer to any other client counts as well.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

SUSPECT_AFTER_SECONDS = 0.5
"""A read that takes this long starts the probe."""

PROBE_SECONDS = 1.0
"""The time-out of one probe, including its connection."""

_PROBE_INTERVAL_SECONDS = 0.2


class FailureDetector:
    """Whether the server responds, as far as this process knows."""

    def __init__(
        self, probe: Callable[[], Awaitable[None]], *, on_failure: Callable[[], None]
    ) -> None:
        """`probe` raises `TimeoutError` without an answer; any other error is an answer."""
        self.has_failed = False
        """True from the first unanswered probe until one is answered."""
        self._probe = probe
        self._on_failure = on_failure
        self._probing: asyncio.Task[None] | None = None
        self._is_closed = False
        self._answered_at = -math.inf

    def note_answer(self) -> None:
        """Record that the server has just answered any query, whatever the answer."""
        self._answered_at = asyncio.get_running_loop().time()

    @property
    def is_suspected(self) -> bool:
        """True while a probe is under way."""
        return self._probing is not None

    def suspect(self) -> None:
        """Probe the server, because a client has waited for long."""
        if self._probing is None and not self._is_closed:
            self._probing = asyncio.create_task(self._probe_until_answered())
            self._probing.add_done_callback(self._note_recovery)

    def _note_recovery(self, task: asyncio.Task[None]) -> None:
        self._probing = None
        if self.has_failed and not task.cancelled():
            self.has_failed = False
            logger.warning("PostgreSQL responds again", extra={"event": "postgres_recovered"})

    async def _probe_until_answered(self) -> None:
        while not await self._is_answered():
            if not self.has_failed:
                self.has_failed = True
                logger.warning(
                    "PostgreSQL does not respond; requests fail immediately until it recovers",
                    extra={"event": "postgres_unresponsive"},
                )
                self._on_failure()
            await asyncio.sleep(_PROBE_INTERVAL_SECONDS)

    async def _is_answered(self) -> bool:
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe()
        except TimeoutError:
            return self._answered_at > asked_at
        except Exception as error:
            # Any error of the server is an answer.
            logger.debug(
                "PostgreSQL refused a probe",
                extra={"event": "postgres_probe_refused", "reason": type(error).__name__},
            )
        return True

    async def close(self) -> None:
        """Stop probing."""
        self._is_closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
