"""How slow the other side of a connection may be: with what it sends, and with what it reads.

Times bodies and answers only, and says when it has had enough; what then happens is the protocol's.
"""

import asyncio
from collections.abc import Callable

from broker.server.lingering_close import FairTimer

LOOK_SECONDS = 10.0
"""How often a body that comes in is looked at."""

UNREAD_SECONDS = 30.0
"""The same for an answer that goes out; what the system holds of it goes in large portions."""

SLOWEST_BYTES_PER_SECOND = 1024
"""Between two looks, of a body that comes in or an answer that goes out."""

BODY_SECONDS = 60.0
"""For the whole of a request's body, however fast it comes."""


class BodyWatch:
    """Times one body after the other; `too_slow` is called once for each that takes too long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        is_paused: Callable[[], bool],
        too_slow: Callable[[], None],
    ) -> None:
        """`is_paused` tells whether it is us who do not read on."""
        self._loop = loop
        self._is_paused = is_paused
        self._too_slow = too_slow
        self._timer: FairTimer | None = None
        self._received = 0
        self._left = BODY_SECONDS

    @property
    def is_on(self) -> bool:
        """Whether a body is being timed."""
        return self._timer is not None

    def begin(self) -> None:
        """A body has begun, and is not complete."""
        self._left = BODY_SECONDS
        self._arm()

    def note(self, length: int) -> None:
        """So many bytes of it have come."""
        self._received += length

    def end(self) -> None:
        """It is complete, or nobody wants it any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._received = 0
        self._timer = FairTimer(self._loop, LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if self._is_paused():
            self._arm()
            return
        self._left -= LOOK_SECONDS
        if self._left <= 0 or self._received < LOOK_SECONDS * SLOWEST_BYTES_PER_SECOND:
            self._timer = None
            self._too_slow()
        else:
            self._arm()


class ReaderWatch:
    """Cuts a connection whose other side does not read what it asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: FairTimer | None = None
        self._unread = 0

    def begin(self) -> None:
        """More is waiting to be read than the system takes, or it is the last that there is."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._arm()

    def end(self) -> None:
        """It has been read, or nobody is there any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._unread = self._transport.get_write_buffer_size()
        self._timer = FairTimer(self._loop, UNREAD_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        if unread and self._unread - unread < UNREAD_SECONDS * SLOWEST_BYTES_PER_SECOND:
            self._transport.abort()
        else:
            self.begin()
