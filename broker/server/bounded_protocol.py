"""HTTP/1.1 on one connection: uvicorn's fast parser, with the bounds that it lacks.

A request that exceeds a bound or is not HTTP gets a problem, and the connection stays open until
its sender could read it. An upgrade is declined, and its request is answered as HTTP/1.1.
"""

import asyncio
from functools import partial
from typing import cast

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from broker.server.file_descriptors import max_connections
from broker.server.lingering_close import FairTimer, LingeringClose
from broker.server.request_head import (
    HEAD_LIMIT,
    HEAD_SECONDS,
    HEAD_TOO_LONG,
    HEAD_TOO_SLOW,
    NOT_HTTP,
    head_fault,
)
from broker.server.transfer_speed import BodyWatch, ReaderWatch
from broker.web.problems import Problem, invalid_request, last_answer
from broker.web.request_ids import RequestIds

_DISCARD_LIMIT = 4 * 1024 * 1024
"""Bytes of a refused request that are read, so that its sender can read the refusal."""

_LINGER_SECONDS = 2.0
"""How long a sender must be silent after the last response before its connection is closed."""

_IDLE_LINGER_SECONDS = 0.2
"""The same for an idle connection when the broker stops: a request may be on its way."""

_REJECTED_SHARE = 8
"""Rejected connections are read until their end, up to one eighth of a listener's connections."""

_WIRE_BYTES_PER_BYTE = 8
"""Chunked framing may take this many bytes per byte of the body. Trailers and chunk extensions may
take as much as a head besides."""

_BODY_TOO_SLOW = invalid_request("body", "The request's body arrives too slowly.", status=408)
_TOO_MUCH_FRAMING = invalid_request("body", "The chunked encoding has too much overhead.")

_request_ids = RequestIds()
"""For requests that are refused before the application sees them."""


class _RefusedHeadError(Exception):
    """A complete head is refused with `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    """Bytes that have arrived of an incomplete head, at least."""
    _head_spans_pieces = False
    _discarded_bytes = 0
    _is_discarding = False
    """True while everything that arrives is discarded."""
    is_hanging_up = False
    """True once the last response has been written."""
    is_rejected = False
    """True if the connection exceeds the limit."""
    _declined_method = b""
    _in_body = False
    """True if the newest request's head is complete and its body is not."""
    _is_body_timed = False
    _body_bytes = 0
    """Bytes of the newest request's body."""
    _wire_bytes = 0
    """Bytes that arrived of it after the piece in which its head ended."""
    _pause_timer: asyncio.TimerHandle | None = None
    _head_timer: FairTimer | None = None
    """Runs until the first head is complete, and while a later one arrives in pieces."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._raw_transport = transport
        self._body_watch = BodyWatch(
            self.loop,
            is_paused=lambda: self.flow.read_paused,
            on_slow=self._on_slow_body,
        )
        self._reader_watch = ReaderWatch(self.loop, transport)
        self._lingering_close = LingeringClose(self.loop, transport)
        super().connection_made(cast(asyncio.Transport, _LingeringTransport(transport, self)))
        if self._exceeds_limit():
            self._reject()
        else:
            self._head_timer = FairTimer(self.loop, HEAD_SECONDS, self._on_head_timeout)

    def _exceeds_limit(self) -> bool:
        """One client address may hold at most three quarters of a listener's connections."""
        limit = max_connections()
        limit_per_address = limit - limit // 4
        if len(self.connections) <= limit_per_address or self.client is None:
            return len(self.connections) > limit
        accepted = [
            getattr(other, "client", None)
            for other in self.connections
            if not getattr(other, "is_rejected", False)
        ]
        same_address = sum(1 for client in accepted if client and client[0] == self.client[0])
        return same_address > limit_per_address or len(accepted) > limit

    def _reject(self) -> None:
        """End the connection without a reset, as long as there is room for its lingering close."""
        self.is_rejected = True
        rejected = sum(getattr(other, "is_rejected", False) for other in self.connections)
        if rejected > max_connections() // _REJECTED_SHARE:
            self._raw_transport.close()
        else:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._body_watch.end()
        self._reader_watch.end()
        self._lingering_close.end()
        if self._pause_timer is not None:
            self._pause_timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_watch.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader_watch.end()

    def shutdown(self) -> None:
        """Answer the requests in flight and end the connection: the broker stops."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self.hang_up(_IDLE_LINGER_SECONDS)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, unless its next request has arrived but is still unread."""
        self.timeout_keep_alive_task = cast(
            asyncio.TimerHandle, FairTimer(self.loop, 0, self.hang_up)
        )

    def pause_reading_for(self, seconds: float) -> None:
        """Read nothing for `seconds`; no request is in flight."""
        self.flow.pause_reading()
        self._pause_timer = self.loop.call_later(seconds, self.flow.resume_reading)

    def data_received(self, data: bytes) -> None:
        # Empty lines may precede a request (RFC 9112 §2.2). Alone they are no request, and the
        # connection stays idle.
        if not data.isspace():
            self._unset_keepalive_if_required()
        if len(data) <= HEAD_LIMIT:
            self._feed(data)
            return
        # In pieces, so that no head is parsed as a whole before it is found too long.
        for start in range(0, len(data), HEAD_LIMIT):
            self._feed(data[start : start + HEAD_LIMIT])

    def hang_up(self, seconds: float | None = None) -> None:
        """Answer nothing more, and close once the sender has had time to read the last response.

        Every connection ends like this, except those that are aborted as abusive.
        """
        if self.transport.is_closing():
            return
        self._is_discarding = self.is_hanging_up = True
        self._stop_head_timer()
        self._body_watch.end()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self._reader_watch.begin()
        self._lingering_close.begin(_LINGER_SECONDS if seconds is None else seconds)

    @property
    def awaits_first_request(self) -> bool:
        """True if no valid request has arrived yet, and one still may."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None and not self.is_hanging_up

    @property
    def awaits_body(self) -> bool:
        """True if the newest request's body was incomplete when the application last read it."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and cycle.scope is self.scope and cycle.more_body

    def on_headers_complete(self) -> None:
        if self._head_spans_pieces and self._head_size() > HEAD_LIMIT:
            raise _RefusedHeadError(HEAD_TOO_LONG)
        fault = head_fault(self.parser.get_http_version(), self.headers)
        if fault is not None:
            raise _RefusedHeadError(fault)
        if self.parser.should_upgrade():
            # The parser would leave the body unparsed; `_decline_upgrade` continues.
            self._declined_method = self.parser.get_method()
            return
        self._body_bytes = 0
        self._in_body = True
        super().on_headers_complete()
        self.cycle.on_response = partial(self._release_request, self.cycle)
        # The parser reports trailers like headers. A proxy has decided by the head alone, so
        # trailers must not count as part of it (RFC 9110 §6.5.1): they are dropped.
        self.headers = []

    def _release_request(self, cycle: RequestResponseCycle) -> None:
        """Free the head and the unread body: the connection may stay idle for long after it."""
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

    def _feed(self, piece: bytes) -> None:
        if self._is_discarding:
            self._lingering_close.note_received()
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
        """More of an incomplete head has arrived."""
        self._head_spans_pieces = True
        self._head_bytes += length
        if self._head_timer is None:
            self._head_timer = FairTimer(self.loop, HEAD_SECONDS, self._on_head_timeout)
        if self._head_bytes > HEAD_LIMIT:
            self._refuse(HEAD_TOO_LONG)

    def _measure_body(self, length: int, *, is_new: bool) -> None:
        """More of an incomplete body has arrived."""
        if is_new:
            self._body_watch.end()
            self._wire_bytes = 0
        if not self._body_watch.is_on:
            self._is_body_timed = True
            self._body_watch.begin()
        self._body_watch.add(length)
        if not is_new:
            self._wire_bytes += length
            if self._wire_bytes > HEAD_LIMIT + _WIRE_BYTES_PER_BYTE * self._body_bytes:
                self._refuse(_TOO_MUCH_FRAMING)

    def _on_slow_body(self) -> None:
        """A request that never ends must not hold resources."""
        cycle: RequestResponseCycle | None = self.cycle
        if self._is_discarding or cycle is None:
            return
        if cycle.response_complete:
            # The response is sent; only the rest of the body would still be discarded.
            self.hang_up()
        else:
            self._refuse(_BODY_TOO_SLOW)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        """A connection that sends no request must not hold resources."""
        self._head_timer = None
        if self._is_discarding:
            return
        if self.flow.read_paused:
            # The server itself has paused reading.
            self._head_timer = FairTimer(self.loop, HEAD_SECONDS, self._on_head_timeout)
        elif self._head_bytes:
            self._refuse(HEAD_TOO_SLOW)
        else:
            self.hang_up()

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its Upgrade header (RFC 9110 §7.8).

        Java's client requests h2c with its first request, which may have a body. A body left
        unparsed would be parsed as the next request.
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
        self._feed(head + b"\r\n")
        self._feed(rest)

    def _refuse(self, problem: Problem) -> None:
        """Answer the requests before, then this one with `problem`, and hang up."""
        self._is_discarding = True
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.on_response = lambda: self._write_problem(problem)
                return
            # The body of this request is malformed: the application must not wait for the rest.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.hang_up()
                return
        self._write_problem(problem)

    def _write_problem(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        # The caller's own id is used if the head was read that far.
        scope: HTTPScope | None = self.scope
        request_id = _request_ids.of(scope["headers"] if scope is not None else ())
        self._raw_transport.write(last_answer(problem, request_id))
        self.hang_up()

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > _DISCARD_LIMIT:
            self._raw_transport.close()


class _LingeringTransport:
    """A transport for uvicorn whose `close` is a lingering close."""

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
    """Return the reason why the parser stopped: our exception, or a syntax error."""
    return cause.problem if isinstance(cause, _RefusedHeadError) else NOT_HTTP
