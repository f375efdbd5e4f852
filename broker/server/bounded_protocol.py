"""HTTP/1.1 on one connection: uvicorn's fast parser, with bounds and manners that it lacks.

A head that is too long and a request that is not HTTP are refused with a problem that the sender
gets to read. Upgrades are declined, and the request that asked for one is answered as it stands.
"""

import asyncio
from functools import partial
from typing import cast

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from broker.server.file_descriptors import most_connections
from broker.server.framing import NOT_HTTP, framing_fault
from broker.server.lingering_close import FairTimer, LingeringClose
from broker.server.slow_clients import BodyWatch, ReaderWatch
from broker.web.problems import Problem, invalid_request, last_answer
from broker.web.request_ids import RequestIds

HEAD_LIMIT = 32 * 1024
"""Bytes of request line and headers together; a 2 KiB token and a long user id fit many times."""

_DISCARD_LIMIT = 4 * 1024 * 1024
"""Bytes of a refused request that are still read, so that its sender gets to see the refusal."""

_LINGER_SECONDS = 2.0
"""How long a sender must be silent after the answer that ends its connection."""

_PARTING_SECONDS = 0.2
"""The same where nothing was asked when the broker stopped: a request may have been on its way."""

HEAD_SECONDS = 10.0
"""For the whole of a request's head, from its first byte or the connection's start."""

HEADERS_AT_MOST = 100
"""Header lines of a request; browsers behind several proxies send some forty."""

_TURNED_AWAY_SHARE = 8
"""Connections that are one too many are read until their end, up to one eighth of a listener's."""

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


class _RefusedHeadError(Exception):
    """A head is complete, and `problem` says what is wrong with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    """Of a head that has begun and is not complete: what has come of it so far, at least."""
    _head_spans_pieces = False
    _discarded_bytes = 0
    _is_deaf = False
    """Whether what still comes in is thrown away."""
    is_hanging_up = False
    """Whether the last answer has been given."""
    is_turned_away = False
    """Whether it is one connection too many."""
    _declined_method = b""
    _in_body = False
    """Whether the newest request's head is complete, and its body is not."""
    _is_body_timed = False
    _body_bytes = 0
    """Of the newest request."""
    _wire_bytes = 0
    """What came of it after the piece with its head's end."""
    _rest_timer: asyncio.TimerHandle | None = None
    _head_timer: FairTimer | None = None
    """Runs until the first head is complete, and while a later one comes in pieces."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._raw_transport = transport
        self._body_watch = BodyWatch(
            self.loop,
            is_paused=lambda: self.flow.read_paused,
            too_slow=self._lose_patience_with_body,
        )
        self._reader_watch = ReaderWatch(self.loop, transport)
        self._lingering_close = LingeringClose(self.loop, transport)
        super().connection_made(cast(asyncio.Transport, _PatientTransport(transport, self)))
        if self._is_one_too_many():
            self._turn_away()
        else:
            self._head_timer = FairTimer(self.loop, HEAD_SECONDS, self._lose_patience)

    def _is_one_too_many(self) -> bool:
        """A quarter of the listener's share is kept free of whoever has the other three."""
        most = most_connections()
        of_one = most - most // 4
        if len(self.connections) <= of_one or self.client is None:
            return len(self.connections) > most
        let_in = [
            getattr(other, "client", None)
            for other in self.connections
            if not getattr(other, "is_turned_away", False)
        ]
        of_this = sum(1 for client in let_in if client and client[0] == self.client[0])
        return of_this > of_one or len(let_in) > most

    def _turn_away(self) -> None:
        """End it like any other, as long as there is room to read what it sends meanwhile."""
        self.is_turned_away = True
        turned_away = sum(getattr(other, "is_turned_away", False) for other in self.connections)
        if turned_away > most_connections() // _TURNED_AWAY_SHARE:
            self._raw_transport.close()
        else:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._body_watch.end()
        self._reader_watch.end()
        self._lingering_close.end()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_watch.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader_watch.end()

    def shutdown(self) -> None:
        """The broker stops: what was asked is answered, and the connection ends then."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self.hang_up(_PARTING_SECONDS)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for long; the next request may lie there unread."""
        self.timeout_keep_alive_task = cast(
            asyncio.TimerHandle, FairTimer(self.loop, 0, self.hang_up)
        )

    def rest(self, seconds: float) -> None:
        """Read nothing for so long, now that there is nothing to answer."""
        self.flow.pause_reading()
        self._rest_timer = self.loop.call_later(seconds, self.flow.resume_reading)

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

    def hang_up(self, seconds: float | None = None) -> None:
        """Answer nothing more, and close once the sender has had time to read the last answer.

        So ends every connection but those that are cut because somebody abuses them.
        """
        if self.transport.is_closing():
            return
        self._is_deaf = self.is_hanging_up = True
        self._stop_head_timer()
        self._body_watch.end()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._reader_watch.begin()
        self._lingering_close.begin(_LINGER_SECONDS if seconds is None else seconds)

    @property
    def awaits_first_request(self) -> bool:
        """Whether no request has come yet that was understood, and one still may."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None and not self.is_hanging_up

    @property
    def awaits_body(self) -> bool:
        """Whether the newest request has a body that was not complete when it was last needed."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.scope is self.scope and cycle.more_body

    def on_headers_complete(self) -> None:
        if self._head_spans_pieces and self._head_size() > HEAD_LIMIT:
            raise _RefusedHeadError(_HEAD_TOO_LONG)
        if len(self.headers) > HEADERS_AT_MOST:
            raise _RefusedHeadError(_TOO_MANY_HEADERS)
        fault = framing_fault(self.parser.get_http_version(), self.headers)
        if fault is not None:
            raise _RefusedHeadError(fault)
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
            self._lingering_close.heard()
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
            self._head_timer = FairTimer(self.loop, HEAD_SECONDS, self._lose_patience)
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
        if self.flow.read_paused:
            # It is us who do not read on.
            self._head_timer = FairTimer(self.loop, HEAD_SECONDS, self._lose_patience)
        elif self._head_bytes:
            self._refuse(_HEAD_TOO_SLOW)
        else:
            self.hang_up()

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
                self.hang_up()
                return
        self._say(problem)

    def _say(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        # The caller's own id counts as far as the head was read.
        scope: HTTPScope | None = self.scope
        request_id = _request_ids.of(scope["headers"] if scope is not None else ())
        self._raw_transport.write(last_answer(problem, request_id))
        self.hang_up()

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > _DISCARD_LIMIT:
            self._raw_transport.close()


class _PatientTransport:
    """A connection as uvicorn sees it; closed, it lingers."""

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
        self._protocol.hang_up()


def _refusal(cause: BaseException | None) -> Problem:
    """What the parser stopped for: an exception of ours, or what it can't read itself."""
    return cause.problem if isinstance(cause, _RefusedHeadError) else NOT_HTTP
