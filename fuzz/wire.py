"""HTTP as bytes: whatever comes in, and in whatever pieces, both ways of answering say the same.

The protocol with answers at once is held against the one that asks the application each time.
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
from broker.server.fast_path import PromptHttpProtocol
from broker.server.listener import Listener
from fuzz.choices import BytesRandom, mangled
from fuzz.places import Place
from fuzz.target import Target, must

WIRE_NAMES = ("HTTP protocol",)

_VARYING = re.compile(rb'(?:x-request-id: |"request_id": ?")[0-9a-f]{12}-[0-9a-f]+')
_addresses = itertools.count(1)
_ROUNDS = 4000
"""Turns of the event loop that an answer may take; one that asks the database takes some dozens."""


class _Transport(asyncio.Transport):
    """Takes the place of a socket: keeps what is written."""

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
        """Everything is read at once."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        # Nothing more is said; what still comes in is thrown away.
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing more comes anyhow."""

    def resume_reading(self) -> None:
        """The same."""


@dataclass(frozen=True)
class _Spoken:
    """What came back, and whether that was the end of the connection."""

    said: bytes
    is_closed: bool

    def before_refusal(self) -> bytes:
        """The answers before the one that ends a malformed connection, if there is that one."""
        answers, begin, refusal = self.said.rpartition(b"HTTP/1.1 400 Bad Request\r\n")
        is_last = begin and b"not a valid HTTP/1.1 request" in refusal
        return answers if is_last else self.said

    def is_over(self) -> bool:
        """Whether nothing more can come; what is still sent to it may yet be taken in."""
        return self.is_closed or b"\r\nconnection: close\r\n" in self.said


async def _spoken(app: Listener, pieces: Sequence[bytes], *, at_once: bool) -> _Spoken:
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", access_log=False)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"now")]
    usual: dict[str, Any] = {"config": config, "server_state": state, "app_state": {}}
    protocol: Any
    if at_once and app.answer_at_once is not None:
        protocol = PromptHttpProtocol(answer_at_once=app.answer_at_once, **usual)
    else:
        protocol = BoundedHttpProtocol(**usual)
    # From everywhere: one address that fails so often is refused for that alone.
    transport = _Transport(str(IPv4Address("10.0.0.0") + next(_addresses) % 2**24))
    protocol.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            protocol.data_received(piece)
        await asyncio.sleep(0)
    await _quiet(protocol)
    spoken = _Spoken(_VARYING.sub(b"#", transport.written), transport.closed)
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks, return_exceptions=True)
    return spoken


async def _quiet(protocol: Any) -> None:
    """Wait until nothing more is to be answered; what waits for more input is not."""
    for turn in range(_ROUNDS):
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


def wire_target(name: str, place: Place) -> Target:
    """The internal listener of this place, spoken to in bytes."""
    key = place.world.key.encode()
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
    listener = place.world.broker.internal
    assert isinstance(listener, Listener)

    def check(data: bytes, rng: random.Random | None = None) -> None:
        rng = rng or BytesRandom(data[-8:])
        cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randrange(4)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        place.loop.run_until_complete(_compare(listener, data, pieces))
        place.has_served()
        place.log.check()

    # All of one length, as lengths are compared, too.
    listener._request_ids._numbers = itertools.count(1 << 40)
    place.loop.run_until_complete(place.world.token("user-1"))
    return Target(name, check, lambda rng: check(mangled(rng, samples), rng), samples, 2048)


async def _compare(listener: Listener, data: bytes, pieces: Sequence[bytes]) -> None:
    prompt = await _spoken(listener, [data], at_once=True)
    must(b"HTTP/1.1 5" not in prompt.said, f"answered {prompt}")
    long_way = await _spoken(listener, [data], at_once=False)
    must(_agree(long_way, prompt), f"otherwise the long way: {prompt} and {long_way}")
    piecemeal = await _spoken(listener, pieces, at_once=True)
    # A head in pieces goes the long way; what is malformed later has more answered before it.
    is_same = _agree(prompt, piecemeal) or _agree(piecemeal, prompt)
    must(is_same, f"otherwise in pieces {pieces!r}: {prompt} and {piecemeal}")


def _agree(later: _Spoken, sooner: _Spoken) -> bool:
    """Whether both say the same up to where it breaks.

    What is malformed takes with it whatever is unanswered; where answers come sooner, there is more
    of them. While something is unanswered there is no refusal: it would be taken for the answer.
    """
    if later.said == sooner.said:
        return True
    is_over = later.is_over() and sooner.is_over()
    return is_over and sooner.before_refusal().startswith(later.before_refusal())
