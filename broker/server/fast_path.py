"""Answers a request in the HTTP protocol itself, the moment its head is complete.

A task, a request cycle and two writes cost more than all that a ready answer needs. Only the
plainest of requests is offered to whoever has such answers, and only in its turn; any other, and
any that nobody has a ready answer for, goes the long way: to the ASGI application.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from broker.server.bounded_protocol import HEADERS_AT_MOST, BoundedHttpProtocol

AnswerAtOnce = Callable[[bytes, Mapping[bytes, bytes]], bytes | None]
"""Given a GET's target as it stands on the wire and its headers, by their names in small letters:
the answer, or nothing to have the application asked.

The answer is what follows the status line (200) and the headers that the server sets: header lines,
an empty line, and a body of the `content-length` that is among them.
"""


class Refused(bytes):
    """An answer like the others, but of the status 429; its connection then rests for a while."""


REST_SECONDS = 0.5
"""How long nothing is read from a connection after a refusal: asking on does not pay."""

_IN_A_ROW = 16
"""Answers to one read of a connection; if there is more in it, the others get their turn first."""

_NOT_PLAIN = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})

_OK_LINE = b"HTTP/1.1 200 OK\r\n"
_REFUSED_LINE = b"HTTP/1.1 429 Too Many Requests\r\n"

logger = logging.getLogger(__name__)


class PromptHttpProtocol(BoundedHttpProtocol):
    """One connection of a listener that has ready answers."""

    _left_in_a_row = _IN_A_ROW
    _server_headers: list[tuple[bytes, bytes]] | None = None
    _opening = b""
    """The status line, and the headers that the server sets, as bytes."""

    def __init__(self, *, answer_at_once: AnswerAtOnce, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._answer_at_once = answer_at_once

    def data_received(self, data: bytes) -> None:
        self._left_in_a_row = _IN_A_ROW
        super().data_received(data)

    def on_headers_complete(self) -> None:
        answer = self._ready_answer() if self._is_plain() else None
        if answer is None:
            super().on_headers_complete()
            return
        self._left_in_a_row -= 1
        if type(answer) is Refused:
            self.transport.write(_REFUSED_LINE + self._open()[len(_OK_LINE) :] + answer)
            self._end()
            self.rest(REST_SECONDS)
            return
        self.transport.write(self._open() + answer)
        self._end()

    def _end(self) -> None:
        # From here on all is as after an answer of the application's: the count of requests, the
        # timer of an idle connection, the next request, a shutdown.
        self.cycle = _Answered(self.scope)
        self.on_response_complete()

    def _is_plain(self) -> bool:
        """Whether it is a GET, in its turn, of a client that stays and reads what it is sent."""
        parser = self.parser
        before: RequestResponseCycle | None = self.cycle
        return (
            parser.get_method() == b"GET"
            and (before is None or before.response_complete)
            and self._left_in_a_row > 0
            and not self.flow.write_paused
            # A head in several pieces is yet to be measured.
            and not self._head_spans_pieces
            and parser.should_keep_alive()
            and parser.get_http_version() == "1.1"
        )

    def _ready_answer(self) -> bytes | None:
        headers = dict(self.headers)
        # A name that comes twice, no host, or a body: whoever reads them with care shall decide.
        is_usual = len(self.headers) == len(headers) <= HEADERS_AT_MOST and b"host" in headers
        if not is_usual or not headers.keys().isdisjoint(_NOT_PLAIN):
            return None
        try:
            return self._answer_at_once(self.url, headers)
        except Exception:
            # Here it would be taken for a fault in the request; the application may do better.
            logger.exception("no answer at once")
            return None

    def _open(self) -> bytes:
        # The server makes a new list each second, with the time of day.
        if self._server_headers is not self.server_state.default_headers:
            self._server_headers = self.server_state.default_headers
            lines = (b"%b: %b\r\n" % header for header in self._server_headers)
            self._opening = _OK_LINE + b"".join(lines)
        return self._opening


class _Answered(RequestResponseCycle):
    """What uvicorn sees of a request that was answered at once: that it is over."""

    disconnected = False
    more_body = False
    response_started = True
    response_complete = True
    message_event = asyncio.Event()
    """Nobody waits for it."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope
