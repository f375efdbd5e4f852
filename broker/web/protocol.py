"""HTTP/1.1 on one connection: uvicorn's fast parser, with bounds and manners that it lacks.

A head that is too long and a request that is not HTTP are refused with a problem that the sender
gets to read. Upgrades are declined, and the request that asked for one is answered as it stands.
"""

import asyncio
import json
from functools import partial
from http import HTTPStatus
from typing import cast

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from broker.web.descriptors import most_connections
from broker.web.framing import NOT_HTTP, framing_fault
from broker.web.problems import PROBLEM_MEDIA_TYPE, Problem, invalid_request
from broker.web.request_ids import RequestIds
from broker.web.slowness import BodyWatch, ReaderWatch

HEAD_LIMIT = 32 * 1024
"""Bytes of request line and headers together; a 2 KiB token and a long user id fit many times."""

_DISCARD_LIMIT = 4 * 1024 * 1024
"""Bytes of a refused request that are still read, so that its sender gets to see the refusal."""

_LINGER_SECONDS = 2.0
"""How long a sender may go on after the answer that ends its connection."""

HEAD_SECONDS = 10.0
"""For the whole of a request's head, from its first byte or the connection's start."""

HEADERS_AT_MOST = 100
"""Header lines of a request; browsers behind several proxies send some forty."""

_WIRE_BYTES_PER_BYTE = 8
"""Of a body that comes in chunks: what its frames may add. Trailers and extensions have the room of
a head besides."""

_HEAD_TOO_LONG = invalid_request(
    "headers", f"The request's line and headers exceed {HEAD_LIMIT} bytes.", status=431
)
_HEAD_TOO_SLOW = invalid_request(
    "headers", f"The request's line and headers took longer than {HEAD_SECONDS:.0f} s.", status=408
)
_TOO_MANY_HEADERS = invalid_request(
    "headers", f"The request has more than {HEADERS_AT_MOST} headers.", status=431
)
_BODY_TOO_SLOW = invalid_request("body", "The request's body comes in too slowly.", status=408)
_BODY_TOO_WIDE = invalid_request("body", "The request's chunks hold too little for their size.")

_request_ids = RequestIds()
"""For requests that are refused before anything else gives them an id."""


class _HeadTooLongError(Exception):
    """A head that came in several pieces is complete, and longer than it may be."""


class _TooManyHeadersError(Exception):
    """A head has more lines than it may have."""


class _FaultyFramingError(Exception):
    """A head leaves open what it means; `problem` says how."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


_REFUSALS: dict[type[BaseException | None], Problem] = {
    _HeadTooLongError: _HEAD_TOO_LONG,
    _TooManyHeadersError: _TOO_MANY_HEADERS,
}


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    """Of a head that has begun and is not complete: what has come of it so far, at least."""
    _head_spans_pieces = False
    _discarded_bytes = 0
    _is_deaf = False
    """Whether what still comes in is thrown away."""
    _is_hanging_up = False
    _declined_method = b""
    _in_body = False
    """Whether the newest request's head is complete, and its body is not."""
    _is_body_timed = False
    _body_bytes = 0
    """Of the newest request."""
    _wire_bytes = 0
    """What came of it after the piece with its head's end."""
    _rest_timer: asyncio.TimerHandle | None = None
    _head_timer: asyncio.TimerHandle | None = None
    """Runs until the first head is complete, and while a later one comes in pieces."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._raw_transport = transport
        self._body_watch = BodyWatch(
            self.loop,
            is_paused=lambda: self.flow.read_paused,
            too_slow=self._lose_patience_with_body,
        )
        self._reader_watch = ReaderWatch(self.loop, transport)
        super().connection_made(cast(asyncio.Transport, _PatientTransport(transport, self)))
        if self._is_one_too_many():
            transport.close()
        else:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._lose_patience)

    def _is_one_too_many(self) -> bool:
        """A quarter of the listener's share is kept free of whoever has the other three."""
        most = most_connections()
        of_one = most - most // 4
        if len(self.connections) <= of_one or self.client is None:
            return len(self.connections) > most
        host = self.client[0]
        clients = (getattr(other, "client", None) for other in self.connections)
        of_this = sum(1 for client in clients if client and client[0] == host)
        return of_this > of_one or len(self.connections) > most

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._body_watch.end()
        self._reader_watch.end()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_watch.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader_watch.end()

    def rest(self, seconds: float) -> None:
        """Read nothing for so long, now that there is nothing to answer."""
        self.flow.pause_reading()
        self._rest_timer = self.loop.call_later(seconds, self.flow.resume_reading)

    def close_when_read(self) -> None:
        """Close the connection; who does not read the rest of its answer is cut off."""
        self._raw_transport.close()
        self._reader_watch.say_farewell()

    def data_received(self, data: bytes) -> None:
        # Empty lines may stand before a request (RFC 9112 §2.2), and alone are none: who sends
        # nothing else goes on being idle.
        if not data.isspace():
            self._unset_keepalive_if_required()
        if len(data) <= HEAD_LIMIT:
            self._take(data)
            return
        # In pieces, so that no head is taken whole before it could be found too long.
        for start in range(0, len(data), HEAD_LIMIT):
            self._take(data[start : start + HEAD_LIMIT])

    def hang_up(self) -> None:
        """Close once the sender has had time to read the answer.

        Closing while bytes of the request are still coming in would reset the connection, and the
        answer would be lost with it (RFC 9112 §9.6).
        """
        if self._is_hanging_up:
            self._raw_transport.close()
            return
        self._is_deaf = self._is_hanging_up = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self._raw_transport.can_write_eof():
            self._raw_transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.close_when_read)

    @property
    def is_hanging_up(self) -> bool:
        """Whether the last answer has been given."""
        return self._is_hanging_up

    @property
    def awaits_body(self) -> bool:
        """Whether the newest request has a body that was not complete when it was last needed."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.scope is self.scope and cycle.more_body

    def on_headers_complete(self) -> None:
        if self._head_spans_pieces and self._head_size() > HEAD_LIMIT:
            raise _HeadTooLongError
        if len(self.headers) > HEADERS_AT_MOST:
            raise _TooManyHeadersError
        fault = framing_fault(self.parser.get_http_version(), self.headers)
        if fault is not None:
            raise _FaultyFramingError(fault)
        if self.parser.should_upgrade():
            # The parser would take the body for another protocol; `_decline_upgrade` goes on.
            self._declined_method = self.parser.get_method()
            return
        self._body_bytes = 0
        self._in_body = True
        super().on_headers_complete()
        self.cycle.on_response = partial(self._answered, self.cycle)
        # The parser hands trailers over as it does headers. They come past whatever a proxy decided
        # by the head, and must not be taken for a part of it (RFC 9110 §6.5.1): nobody sees them.
        self.headers = []

    def _answered(self, cycle: RequestResponseCycle) -> None:
        """What was sent must not stay for as long as the connection may rest then: neither a long
        head, nor a body that nobody read.
        """
        cycle.body = bytearray()
        cycle.scope.update({"headers": [], "path": "", "raw_path": b"", "query_string": b""})
        if cycle.scope is self.scope:
            self.url = b""
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _take(self, piece: bytes) -> None:
        if self._is_deaf:
            self._discard(piece)
            return
        before: RequestResponseCycle | None = self.cycle
        began_in_body = before is not None and before.more_body and self.awaits_body
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_refusal(error.__context__))
        else:
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is None or cycle.scope is not self.scope:
                self._measure_head(0 if began_in_body or cycle is not before else len(piece))
            else:
                self._stop_head_timer()
                self._head_spans_pieces = False
                self._head_bytes = 0
                if self._in_body:
                    self._measure_body(len(piece), is_new=cycle is not before)
                elif self._is_body_timed:
                    self._is_body_timed = False
                    self._body_watch.end()
                if cycle is before and cycle.response_complete and cycle.more_body:
                    self._discard(piece)
                else:
                    self._discarded_bytes = 0

    def _measure_head(self, length: int) -> None:
        """More of a head has come, and it is not complete."""
        self._head_spans_pieces = True
        self._head_bytes += length
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._lose_patience)
        if self._head_bytes > HEAD_LIMIT:
            self._refuse(_HEAD_TOO_LONG)

    def _measure_body(self, length: int, *, is_new: bool) -> None:
        """More of a body has come, and it is not complete."""
        if is_new:
            self._body_watch.end()
            self._wire_bytes = 0
        if not self._body_watch.is_on:
            self._is_body_timed = True
            self._body_watch.begin()
        self._body_watch.note(length)
        if not is_new:
            self._wire_bytes += length
            if self._wire_bytes > HEAD_LIMIT + _WIRE_BYTES_PER_BYTE * self._body_bytes:
                self._refuse(_BODY_TOO_WIDE)

    def _lose_patience_with_body(self) -> None:
        """A request that never ends must not hold what it began to use."""
        cycle: RequestResponseCycle | None = self.cycle
        if self._is_deaf or cycle is None:
            return
        if cycle.response_complete:
            # It has had its answer; only the rest of the body is still to be thrown away.
            self.hang_up()
        else:
            self._refuse(_BODY_TOO_SLOW)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _lose_patience(self) -> None:
        """Connections that never say what they want must not use up what others need."""
        self._head_timer = None
        if self._is_deaf:
            return
        if self._head_bytes:
            self._refuse(_HEAD_TOO_SLOW)
        else:
            self._raw_transport.close()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Go on as if no upgrade had been asked for (RFC 9110 §7.8).

        Java's client asks for h2c with its first request, body and all. Were the body left out, it
        would be taken for the next request.
        """
        if self._declined_method == b"CONNECT":
            self._refuse(NOT_HTTP)
            return
        version = self.parser.get_http_version().encode()
        head = b"%s %s HTTP/%s\r\n" % (self._declined_method, self.url, version)
        for name, value in self.headers:
            if name != b"upgrade":
                head += b"%s: %s\r\n" % (name, value)
        self._head_spans_pieces = False
        self._head_bytes = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._take(head + b"\r\n")
        self._take(rest)

    def _refuse(self, problem: Problem) -> None:
        """Answer what can't be read on, after all that was asked before, and hang up."""
        self._is_deaf = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.on_response = lambda: self._say(problem)
                return
            # It is this request's own body that is broken; nobody shall wait for the rest.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self._raw_transport.close()
                return
        self._say(problem)

    def _say(self, problem: Problem) -> None:
        if self._raw_transport.is_closing():
            return
        # The caller's own id counts as far as the head was read.
        scope: HTTPScope | None = self.scope
        request_id = _request_ids.of(scope["headers"] if scope is not None else ())
        self._raw_transport.write(_answer(problem, request_id))
        self.hang_up()

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > _DISCARD_LIMIT:
            self._raw_transport.close()


class _PatientTransport:
    """A connection as uvicorn sees it; closed in the middle of a request, it lingers."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedHttpProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self.write = transport.write
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def is_closing(self) -> bool:
        return self._protocol.is_hanging_up or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.awaits_body:
            self._protocol.hang_up()
        else:
            self._protocol.close_when_read()


def _refusal(cause: BaseException | None) -> Problem:
    """What the parser stopped for: one of our own exceptions, or what it can't read itself."""
    if isinstance(cause, _FaultyFramingError):
        return cause.problem
    return _REFUSALS.get(type(cause), NOT_HTTP)


def _answer(problem: Problem, request_id: str) -> bytes:
    body = json.dumps(problem.body(request_id)).encode()
    lines = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"content-type: {PROBLEM_MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        f"x-request-id: {request_id}",
        "connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body
