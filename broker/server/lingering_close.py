"""Lingering close: ends a connection without a reset (RFC 9112 §9.6).

The system resets a connection that is closed while bytes of its sender are unread or still arrive,
and the response is lost with it. So a FIN goes first, and the socket is read until it is closed.
"""

import asyncio
from collections.abc import Callable

MAX_CHECKS = 5
"""A sender that does not stop is cut off after this many times the silence that is waited for."""


class FairTimer:
    """Calls back after a delay, but only once everything that had arrived by then has been read.

    An event loop runs due timers before it polls the sockets. After a pause of the loop, a plain
    timer would judge a client without the bytes that arrived in time.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.Handle = loop.call_later(seconds, self._skip_iteration)

    def cancel(self) -> None:
        self._handle.cancel()

    def _skip_iteration(self) -> None:
        self._handle = self._loop.call_soon(self._after_poll)

    def _after_poll(self) -> None:
        # A callback scheduled here runs after the event loop has polled its sockets.
        self._handle = self._loop.call_soon(self._callback)


class LingeringClose:
    """Sends a FIN after the last response, and closes once the sender is silent.

    The protocol reads and discards what still arrives. It ends immediately when the sender closes
    its own side. Nothing is closed before all bytes are sent; `ReaderWatch` bounds that wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = 0.0
        self._checks_left = MAX_CHECKS
        self._has_received = False
        self._timer: FairTimer | None = None

    def begin(self, seconds: float) -> None:
        """Close once all bytes are sent and none has arrived for `seconds`."""
        self._seconds = seconds
        self._transport.write_eof()
        # The last write goes out in this event-loop iteration.
        self._timer = FairTimer(self._loop, 0, self._arm)

    def note_received(self) -> None:
        """The sender is not silent yet."""
        self._has_received = True

    def end(self) -> None:
        """The connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        is_sent = not self._transport.get_write_buffer_size()
        self._has_received = False
        self._timer = FairTimer(self._loop, self._seconds, self._check if is_sent else self._arm)

    def _check(self) -> None:
        self._checks_left -= 1
        if self._has_received and self._checks_left:
            self._arm()
        else:
            self._transport.close()
