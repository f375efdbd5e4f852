"""Ends a connection without a reset: a FIN first, and a socket that is read until it is closed.

The system resets a connection that is closed while bytes of its sender are unread or still coming
in, and the answer is lost with it (RFC 9112 §9.6). And a timer that is due runs before the sockets
are read: after a pause of the event loop it would judge a client by what had long arrived.
"""

import asyncio
from collections.abc import Callable

LOOKS_AT_MOST = 5
"""Who goes on sending after the end of its connection for so many times the time that it has, is
not waited for."""


class FairTimer:
    """Calls back once the time is over and all that had arrived by then has been read."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.Handle = loop.call_later(seconds, self._wait_a_round)

    def cancel(self) -> None:
        """It does not call back any more."""
        self._handle.cancel()

    def _wait_a_round(self) -> None:
        self._handle = self._loop.call_soon(self._wait_another)

    def _wait_another(self) -> None:
        # What is put off from here comes after the event loop has looked at its sockets.
        self._handle = self._loop.call_soon(self._callback)


class LingeringClose:
    """Sends a FIN after what is being sent, and closes when the other side had time to read it.

    The protocol reads on meanwhile, and throws away what comes. Whoever ends its own side is done
    at once. That all is sent in the end is for others to see to: until then nothing is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = 0.0
        self._looks_left = LOOKS_AT_MOST
        self._has_heard = False
        self._timer: FairTimer | None = None

    def begin(self, seconds: float) -> None:
        """Close once all is sent, and nothing came for so many seconds."""
        self._seconds = seconds
        self._transport.write_eof()
        # What was written last goes out in this round of the event loop.
        self._timer = FairTimer(self._loop, 0, self._arm)

    def heard(self) -> None:
        """The other side is still sending."""
        self._has_heard = True

    def end(self) -> None:
        """The connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        is_sent = not self._transport.get_write_buffer_size()
        self._has_heard = False
        self._timer = FairTimer(self._loop, self._seconds, self._look if is_sent else self._arm)

    def _look(self) -> None:
        self._looks_left -= 1
        if self._has_heard and self._looks_left:
            self._arm()
        else:
            self._transport.close()
