"""Minimum speed of clients: of the bodies that they send, and of the responses that they read.

Measures the speed and reports a client that is too slow; the protocol decides what follows.
"""

import asyncio
from collections.abc import Callable

from broker.server.lingering_close import FairTimer

BODY_CHECK_SECONDS = 10.0
"""How often the speed of a request's body is checked."""

RESPONSE_CHECK_SECONDS = 30.0
"""The same for a response; the system's send buffer empties in large portions."""

MIN_BYTES_PER_SECOND = 1024
"""Between two checks, for a body that arrives or a response that is read."""

BODY_SECONDS = 60.0
"""For the whole of a request's body, whatever its speed."""


class BodyWatch:
    """Measures one body after another; `on_slow` is called once for each that is too slow."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        is_paused: Callable[[], bool],
        on_slow: Callable[[], None],
    ) -> None:
        """`is_paused` returns True while the server itself does not read."""
        self._loop = loop
        self._is_paused = is_paused
        self._on_slow = on_slow
        self._timer: FairTimer | None = None
        self._received = 0
        self._left = BODY_SECONDS

    @property
    def is_on(self) -> bool:
        """True while a body is measured."""
        return self._timer is not None

    def begin(self) -> None:
        """A body has begun and is incomplete."""
        self._left = BODY_SECONDS
        self._arm()

    def add(self, length: int) -> None:
        """More bytes of the body have arrived."""
        self._received += length

    def end(self) -> None:
        """The body is complete, or no longer needed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._received = 0
        self._timer = FairTimer(self._loop, BODY_CHECK_SECONDS, self._check)

    def _check(self) -> None:
        if self._is_paused():
            self._arm()
            return
        self._left -= BODY_CHECK_SECONDS
        if self._left <= 0 or self._received < BODY_CHECK_SECONDS * MIN_BYTES_PER_SECOND:
            self._timer = None
            self._on_slow()
        else:
            self._arm()


class ReaderWatch:
    """Aborts a connection whose client does not read its responses."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: FairTimer | None = None
        self._unread = 0

    def begin(self) -> None:
        """The write buffer is full, or holds the last response of the connection."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self._arm()

    def end(self) -> None:
        """The client has read enough, or the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._unread = self._transport.get_write_buffer_size()
        self._timer = FairTimer(self._loop, RESPONSE_CHECK_SECONDS, self._check)

    def _check(self) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        if unread and self._unread - unread < RESPONSE_CHECK_SECONDS * MIN_BYTES_PER_SECOND:
            self._transport.abort()
        else:
            self.begin()
