"""HTTP as bytes: for any input, in any pieces, both protocols send the same responses.

The protocol with the fast path is compared with the one that always calls the application.
"""

import asyncio
import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from broker.server.bounded_protocol import BoundedHttpProtocol
from broker.server.fast_path import FastPathProtocol
from broker.server.listener import Listener
from fuzz.choices import BytesRandom, mangled
from fuzz.fuzzed_broker import FuzzedBroker
from fuzz.target import Target, must

WIRE_NAMES = ("HTTP protocol",)

_VARYING = re.compile(rb'(?:x-request-id: |"request_id": ?")[0-9a-f]{12}-[0-9a-f]+')
_addresses = itertools.count(1)
_ITERATIONS = 4000
"""Event-loop iterations that a response may take; one with a database query takes some dozens."""


class _Transport(asyncio.Transport):
    """Stands in for a socket and keeps what is written."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self._address, 1) if name in ("peername", "sockname") else default

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: all input is available."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        # Nothing more is written; further input is discarded.
        self.closed = True

    def pause_reading(self) -> None:
        """Do nothing: no input follows."""

    def resume_reading(self) -> None:
        """Do nothing: no input follows."""


@dataclass(frozen=True)
class _Output:
    """What was written, and whether the connection has ended."""

    written: bytes
    is_closed: bool

    def before_refusal(self) -> bytes:
        """Return the responses before the one that ends a malformed connection, if any."""
        answers, begin, refusal = self.written.rpartition(b"HTTP/1.1 400 Bad Request\r\n")
        is_last = begin and b"not a valid HTTP/1.1 request" in refusal
        return answers if is_last else self.written

    def is_over(self) -> bool:
        """True if no further response can follow."""
        return self.is_closed or b"\r\nconnection: close\r\n" in self.written


async def _output_of(app: Listener, pieces: Sequence[bytes], *, with_fast_path: bool) -> _Output:
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", access_log=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"now")]
    usual: dict[str, Any] = {"config": config, "server_state": state, "app_state": {}}
    protocol: Any
    if with_fast_path and app.fast_path is not None:
        protocol = FastPathProtocol(fast_path=app.fast_path, **usual)
    else:
        protocol = BoundedHttpProtocol(**usual)
    # From many addresses: one address with so many failures would be rejected.
    transport = _Transport(str(IPv4Address("10.0.0.0") + next(_addresses) % 2**24))
    protocol.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            protocol.data_received(piece)
        await asyncio.sleep(0)
    await _quiet(protocol)
    spoken = _Output(_VARYING.sub(b"#", transport.written), transport.closed)
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks, return_exceptions=True)
    return spoken


async def _quiet(protocol: Any) -> None:
    """Wait until every complete request is answered."""
    for turn in range(_ITERATIONS):
        cycle = protocol.cycle
        is_answered = cycle is None or cycle.response_complete
        if is_answered or cycle.disconnected or _waits_for_more(cycle):
            if turn > 8:
                return
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0 if turn < 50 else 0.001)


def _waits_for_more(cycle: Any) -> bool:
    return bool(cycle.more_body and cycle.message_event._waiters)


def wire_target(name: str, broker: FuzzedBroker) -> Target:
    """Return the target: the internal listener, with bytes as input."""
    key = broker.world.key.encode()
    head = b"Host: a\r\nAuthorization: Bearer %b\r\n" % key
    get = b"GET /v1/users/user-1/token%b HTTP/1.1\r\n" + head + b"%b\r\n"
    samples = [
        get % (b"", b""),
        get % (b"?min_ttl=60", b"X-Request-Id: abc\r\n"),
        get % (b"", b"") + get % (b"?scope=openid", b""),
        get % (b"", b"Connection: close\r\n"),
        get % (b"", b"Content-Length: 2\r\n") + b"ab",
        get % (b"", b"Transfer-Encoding: chunked\r\n") + b"1\r\na\r\n0\r\n\r\n",
        get % (b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
        b"POST /v1/tokens HTTP/1.1\r\n" + head + b"Content-Type: application/json\r\n"
        b'Content-Length: 36\r\n\r\n{"requests": [{"user_id": "user-1"}]}',
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/v1/users/user-1/token HTTP/1.1\r\n" + head + b"\r\n",
        b"GET /v1/users/user-1/%e2%82%ac HTTP/1.0\r\n\r\n",
    ]
    listener = broker.world.broker.internal
    assert isinstance(listener, Listener)

    def check(data: bytes, rng: random.Random | None = None) -> None:
        rng = rng or BytesRandom(data[-8:])
        cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randrange(4)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        broker.loop.run_until_complete(_compare(listener, data, pieces))
        broker.has_served()
        broker.log.check()

    # All of one length, since lengths are compared, too.
    listener._request_ids._numbers = itertools.count(1 << 40)
    broker.loop.run_until_complete(broker.world.token("user-1"))
    return Target(name, check, lambda rng: check(mangled(rng, samples), rng), samples, 2048)


async def _compare(listener: Listener, data: bytes, pieces: Sequence[bytes]) -> None:
    fast = await _output_of(listener, [data], with_fast_path=True)
    must(b"HTTP/1.1 5" not in fast.written, f"answered {fast}")
    plain = await _output_of(listener, [data], with_fast_path=False)
    must(_agree(plain, fast), f"different without the fast path: {fast} and {plain}")
    piecemeal = await _output_of(listener, pieces, with_fast_path=True)
    # The application answers a head in pieces; more is answered before a later fault.
    is_same = _agree(fast, piecemeal) or _agree(piecemeal, fast)
    must(is_same, f"different in pieces {pieces!r}: {fast} and {piecemeal}")


def _agree(later: _Output, sooner: _Output) -> bool:
    """True if both sent the same responses up to the fault.

    A malformed request ends the connection with its unanswered requests; with faster answers there
    are fewer of those. While a request is unanswered there is no refusal, which would be taken for
    its response.
    """
    if later.written == sooner.written:
        return True
    is_over = later.is_over() and sooner.is_over()
    return is_over and sooner.before_refusal().startswith(later.before_refusal())
