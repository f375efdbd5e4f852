"""Fast path: answers a request in the HTTP protocol itself, as soon as its head is complete.

An ASGI task, a request cycle and two writes cost more than everything else that a ready answer
needs. Only a plain GET without an unanswered request before it is offered to the fast path. Every
other request, and one for which no answer is ready, goes to the ASGI application.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from broker.server.bounded_protocol import BoundedHttpProtocol
from broker.server.request_head import MAX_HEADERS

FastPath = Callable[[bytes, Mapping[bytes, bytes]], bytes | None]
"""Called with a GET's target as it is on the wire and its headers, names in lower case. Returns the
answer, or None to let the application answer.

The answer, 200 or `TooManyRequests`, is what follows the status line and the headers that the
server sets: header lines, an empty line, and a body of the length that its `content-length` says.
"""


class TooManyRequests(bytes):
    """A ready answer with status 429. The server then pauses reading its connection."""


READ_PAUSE_SECONDS = 0.5
"""How long a connection is not read after a 429: an immediate retry does not pay."""

_PER_READ = 16
"""Ready answers to one read of a connection; further requests in it wait for the others."""

_NOT_PLAIN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})

_OK_LINE = b"HTTP/1.1 200 OK\r\n"
_TOO_MANY_LINE = b"HTTP/1.1 429 Too Many Requests\r\n"

logger = logging.getLogger(__name__)


class FastPathProtocol(BoundedHttpProtocol):
    """One connection of a listener that has a fast path."""

    _left_of_read = _PER_READ
    _server_headers: list[tuple[bytes, bytes]] | None = None
    _opening = b""
    """The status line and the headers that the server sets, encoded."""

    def __init__(self, *, fast_path: FastPath, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._fast_path = fast_path

    def data_received(self, data: bytes) -> None:
        self._left_of_read = _PER_READ
        super().data_received(data)

    def on_headers_complete(self) -> None:
        answer = self._ready_answer() if self._is_plain() else None
        if answer is None:
            super().on_headers_complete()
            return
        self._left_of_read -= 1
        if type(answer) is TooManyRequests:
            self.transport.write(_TOO_MANY_LINE + self._open()[len(_OK_LINE) :] + answer)
            self._end()
            self.pause_reading_for(READ_PAUSE_SECONDS)
            return
        self.transport.write(self._open() + answer)
        self._end()

    def _end(self) -> None:
        # From here on everything is as after the application's response: the count of requests,
        # the timer of an idle connection, the next request, a shutdown.
        self.cycle = _FinishedCycle(self.scope)
        self.on_response_complete()

    def _is_plain(self) -> bool:
        """True for a GET without an unanswered request before it, on a connection that stays open
        and whose write buffer is not full.
        """
        parser = self.parser
        before: RequestResponseCycle | None = self.cycle
        return (
            parser.get_method() == b"GET"
            and (before is None or before.response_complete)
            and self._left_of_read > 0
            and not self.flow.write_paused
            # The size of a head in several pieces has not been checked yet.
            and not self._head_spans_pieces
            and parser.should_keep_alive()
            and parser.get_http_version() == "1.1"
        )

    def _ready_answer(self) -> bytes | None:
        headers = dict(self.headers)
        # The application decides about a repeated header, a missing host, or a body.
        is_usual = len(self.headers) == len(headers) <= MAX_HEADERS and b"host" in headers
        if not is_usual or not headers.keys().isdisjoint(_NOT_PLAIN):
            return None
        try:
            return self._fast_path(self.url, headers)
        except Exception:
            # The parser would report the exception as a malformed request.
            logger.exception(
                "fast path failed; the application answers the request",
                extra={"event": "fast_path_failed"},
            )
            return None

    def _open(self) -> bytes:
        # uvicorn makes a new list each second, with the current date.
        if self._server_headers is not self.server_state.default_headers:
            self._server_headers = self.server_state.default_headers
            lines = (b"%b: %b\r\n" % header for header in self._server_headers)
            self._opening = _OK_LINE + b"".join(lines)
        return self._opening


class _FinishedCycle(RequestResponseCycle):
    """What uvicorn sees of a request on the fast path: a complete response."""

    disconnected = False
    more_body = False
    response_started = True
    response_complete = True
    message_event = asyncio.Event()
    """Nothing waits for it."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope
