"""Tells a PostgreSQL that has stopped answering from one that takes its time.

A server that is gone refuses at once; one that hangs, or whose packets are lost, lets everybody
wait for as long as they will. So it is asked something easy on a connection of its own, and while
neither that nor anything else has an answer, nobody else need wait. It is asked again and again
until it answers. To connect takes many steps of this process, which may itself be short of time: an
answer to anybody meanwhile is one.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

DOUBT_SECONDS = 0.5
"""A read that waits for so long makes us ask."""

ANSWER_SECONDS = 1.0
"""What the easy question may take, with the connection that is made for it."""

_PAUSE_SECONDS = 0.2


class Silence:
    """Whether the server answers at all, as far as anybody here knows."""

    def __init__(
        self, ask: Callable[[], Awaitable[None]], *, on_silent: Callable[[], None]
    ) -> None:
        """`ask` raises `TimeoutError` when there is no answer; any other error is one."""
        self.is_known = False
        """True from the first question without an answer until one is answered."""
        self._ask = ask
        self._on_silent = on_silent
        self._asking: asyncio.Task[None] | None = None
        self._is_closed = False
        self._heard_at = -math.inf

    def hear(self) -> None:
        """The server has just answered something, whatever it said."""
        self._heard_at = asyncio.get_running_loop().time()

    @property
    def is_suspected(self) -> bool:
        """Whether the server is being asked."""
        return self._asking is not None

    def suspect(self) -> None:
        """Somebody has waited for long: find out."""
        if self._asking is None and not self._is_closed:
            self._asking = asyncio.create_task(self._ask_until_answered())
            self._asking.add_done_callback(self._has_answered)

    def _has_answered(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if self.is_known and not task.cancelled():
            self.is_known = False
            logger.warning("PostgreSQL answers again")

    async def _ask_until_answered(self) -> None:
        while not await self._answers():
            if not self.is_known:
                self.is_known = True
                logger.warning("PostgreSQL does not answer: nobody waits for it until it does")
                self._on_silent()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _answers(self) -> bool:
        asked_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._ask()
        except TimeoutError:
            return self._heard_at > asked_at
        except Exception as error:
            # Whatever it says, it speaks.
            logger.debug("PostgreSQL refuses", extra={"reason": type(error).__name__})
        return True

    async def close(self) -> None:
        """Ask no more."""
        self._is_closed = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
