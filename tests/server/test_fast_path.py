"""The fast path on real sockets: plain requests only, and in order."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from broker.server import fast_path as fast_path_module
from broker.server.fast_path import FastPathProtocol
from broker.server.listener import Listener
from broker.server.request_head import HEAD_LIMIT
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import RequestIds
from tests.server.sockets import Answer, Wire, get, post, serving

_MANY_BYTES = 256 * 1024


class _Service:
    """Answers on the fast path or by the application, shows which, and echoes the query."""

    def __init__(self) -> None:
        self.answers = 0

    def fast_path(self, target: bytes, _headers: Mapping[bytes, bytes]) -> bytes | None:
        if target.startswith(b"/broken"):
            raise RuntimeError("a defect")
        if not target.startswith(b"/ready"):
            return None
        body = self._body(target)
        return b"content-length: %d\r\nx-by: fast path\r\n\r\n%b" % (len(body), body)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["raw_path"] == b"/slow":
            await asyncio.sleep(0.02)
        body = self._body(scope["raw_path"] + b"?" + scope["query_string"])
        headers = [(b"content-length", b"%d" % len(body)), (b"x-by", b"app")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self, target: bytes) -> bytes:
        self.answers += 1
        return b"x" * _MANY_BYTES if b"many" in target else target.partition(b"?")[2]


@pytest.fixture
def service() -> _Service:
    return _Service()


@pytest.fixture
def port(service: _Service) -> Iterator[int]:
    listener = Listener(
        "internal",
        service,
        metrics=Metrics(),
        request_ids=RequestIds(),
        fast_path=service.fast_path,
    )
    with serving(listener) as (port,):
        yield port


@pytest.fixture
def wire(port: int) -> Iterator[Wire]:
    with Wire(port) as wire:
        yield wire


def _answered_by(answer: Answer) -> str | None:
    return answer.header("x-by")


def test_plain_requests_are_answered_on_the_fast_path(wire: Wire) -> None:
    for number in range(3):
        answer = wire.say(get(f"/ready?{number}")).hear()
        assert (answer.status, _answered_by(answer), answer.body) == (
            200,
            "fast path",
            b"%d" % number,
        )


def test_the_headers_of_the_server_come_first(wire: Wire) -> None:
    answer = wire.say(get("/ready")).hear()
    assert [name for name, _ in answer.headers] == ["date", "content-length", "x-by"]
    by_app = wire.say(get("/other")).hear()
    assert answer.headers[0][1][:16] == by_app.headers[0][1][:16]


def test_without_a_ready_answer_the_application_answers(wire: Wire) -> None:
    assert _answered_by(wire.say(get("/other")).hear()) == "app"


_NOT_PLAIN = {
    "HEAD": get("/ready").replace(b"GET", b"HEAD"),
    "POST": post(b"{}", path="/ready"),
    "Connection: close": get("/ready", "Connection: close"),
    "close among others": get("/ready", "Connection: foo, close"),
    "HTTP/1.0": get("/ready").replace(b"1.1", b"1.0"),
    "HTTP/1.0, kept": get("/ready", "Connection: keep-alive").replace(b"1.1", b"1.0"),
    "empty body": get("/ready", "Content-Length: 0"),
    "body": get("/ready", "Content-Length: 5") + b"hello",
    "chunks": get("/ready", "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n",
    "Expect": get("/ready", "Expect: 100-continue"),
    "Upgrade without Connection": get("/ready", "Upgrade: websocket"),
    "the same header twice": get("/ready", "X-A: 1", "x-a: 2"),
}


@pytest.mark.parametrize("request_bytes", _NOT_PLAIN.values(), ids=_NOT_PLAIN)
def test_a_request_that_is_not_plain_is_answered_by_the_application(
    port: int, request_bytes: bytes
) -> None:
    with Wire(port) as wire:
        wire.say(request_bytes)
        # An answer to HEAD has no body, whatever its length says.
        if request_bytes.startswith(b"HEAD"):
            wire.say(get("/other", "Connection: close"))
            assert wire.hear_the_end().count(b"x-by: app") == 2
        else:
            assert _answered_by(wire.hear()) == "app"


@pytest.mark.parametrize("name", ["body", "chunks", "empty body"])
def test_the_body_of_a_get_is_not_parsed_as_a_request(wire: Wire, name: str) -> None:
    assert _answered_by(wire.say(_NOT_PLAIN[name]).hear()) == "app"
    assert wire.say(get("/ready?next")).hear().body == b"next"


@pytest.mark.parametrize("name", ["Connection: close", "HTTP/1.0", "HTTP/1.0, kept"])
def test_a_response_that_ends_its_connection_says_so(wire: Wire, name: str) -> None:
    answer = wire.say(_NOT_PLAIN[name]).hear()
    assert answer.header("connection") == "close"
    assert wire.hear_the_end() == b""


def test_a_request_whose_upgrade_was_declined_is_answered_and_so_is_the_next(wire: Wire) -> None:
    request_bytes = get(
        "/ready?1", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"
    )
    assert wire.say(request_bytes + get("/ready?2")).hear().body == b"1"
    assert wire.hear().body == b"2"


def test_a_head_in_pieces_is_answered(wire: Wire) -> None:
    for byte in get("/ready?slowly"):
        wire.say(bytes([byte]))
    assert wire.hear().body == b"slowly"
    assert _answered_by(wire.say(get("/ready")).hear()) == "fast path"


@pytest.mark.parametrize("pieces", [1, 4])
def test_a_head_that_is_too_long_is_refused(wire: Wire, pieces: int) -> None:
    request_bytes = get("/ready", "X-Long: " + "x" * HEAD_LIMIT)
    size = -(-len(request_bytes) // pieces)
    wire.say(*(request_bytes[at : at + size] for at in range(0, len(request_bytes), size)))
    assert wire.hear().status == 431


def test_answered_requests_do_not_count_towards_the_next_head(wire: Wire) -> None:
    """A read may end with an incomplete head: only that part is measured."""
    whole = get("/ready?1", "X-Fill: " + "x" * 900)
    for _ in range(5):
        wire.say(whole * 8 + whole[:500])
        assert [wire.hear().status for _ in range(8)] == [200] * 8
        assert wire.say(whole[500:]).hear().status == 200


def test_garbage_after_a_request_is_refused(wire: Wire) -> None:
    wire.say(get("/ready?1") + b"garbage\r\n\r\n")
    assert [wire.hear().status, wire.hear().status] == [200, 400]
    assert wire.hear_the_end() == b""


# ---- pipelined requests


def test_a_ready_answer_waits_for_the_slow_ones_before_it(wire: Wire) -> None:
    request_bytes = [get(f"/{'slow' if n % 3 == 0 else 'ready'}?{n}") for n in range(12)]
    wire.say(b"".join(request_bytes))
    assert [wire.hear().body for _ in request_bytes] == [b"%d" % n for n in range(12)]


def test_a_request_that_arrives_during_a_slow_one_waits_for_it(wire: Wire) -> None:
    wire.say(get("/slow?1"))
    wire.say(get("/ready?2"))
    assert [wire.hear().body, wire.hear().body] == [b"1", b"2"]


def test_more_requests_than_the_bound_per_read_are_all_answered(wire: Wire) -> None:
    wire.say(b"".join(get(f"/ready?{n}") for n in range(100)))
    answers = [wire.hear() for _ in range(100)]
    assert [answer.body for answer in answers] == [b"%d" % n for n in range(100)]
    assert {_answered_by(answer) for answer in answers} == {"fast path", "app"}
    assert _answered_by(wire.say(get("/ready")).hear()) == "fast path"


def test_a_client_that_does_not_read_is_not_answered_without_bound(
    port: int, service: _Service, wire: Wire
) -> None:
    with Wire(port) as other:
        for _ in range(200):
            wire.say(get("/ready?many"))
            # When this is answered, the server has read the request before it.
            assert other.say(get("/ready?ok")).hear().body == b"ok"
    # A few dozen answers fill the kernel's buffers of both ends.
    assert service.answers - 200 < 120
    assert {len(wire.hear().body) for _ in range(200)} == {_MANY_BYTES}
    assert service.answers - 200 == 200


# ---- failures, and the end of a connection


def test_after_a_failure_the_application_answers(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert _answered_by(wire.say(get("/broken")).hear()) == "app"
    assert [vars(record)["event"] for record in caplog.records] == ["fast_path_failed"]


def test_an_idle_connection_does_not_delay_the_stop(service: _Service) -> None:
    listener = Listener(
        "internal",
        service,
        metrics=Metrics(),
        request_ids=RequestIds(),
        fast_path=service.fast_path,
    )
    with serving(listener) as (port,):
        wire = Wire(port)
        assert _answered_by(wire.say(get("/ready")).hear()) == "fast path"
    assert wire.hear_the_end() == b""
    wire.__exit__()


@asynccontextmanager
async def _listening(
    service: _Service, state: ServerState, *, keep_alive: int = 5
) -> AsyncIterator[asyncio.Server]:
    """The protocol alone; `keep_alive` in seconds, by default uvicorn's own."""
    config = uvicorn.Config(
        service, lifespan="off", log_config=None, ws="none", timeout_keep_alive=keep_alive
    )

    def connection() -> FastPathProtocol:
        return FastPathProtocol(
            fast_path=service.fast_path, config=config, server_state=state, app_state={}
        )

    loop = asyncio.get_running_loop()
    async with await loop.create_server(connection, "127.0.0.1", 0) as server:
        yield server


async def test_an_idle_connection_is_closed_in_time_and_a_busy_one_is_not(
    service: _Service,
) -> None:
    state, loop = ServerState(), asyncio.get_running_loop()
    async with _listening(service, state, keep_alive=2) as server:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            began = loop.time()
            # The timers of the first answers would end the connection early.
            for number in range(30):
                writer.write(get(f"/ready?{number:02}") * 2)
                for _ in range(2):
                    assert (await reader.readuntil(b"\r\n\r\n%02d" % number)).count(
                        b"fast path"
                    ) == 1
                await asyncio.sleep(0.1)
            assert await reader.read() == b""
            assert loop.time() - began > 4.9
            writer.close()
            while state.connections:  # noqa: ASYNC110  (no event)
                await asyncio.sleep(0.01)
    assert state.total_requests == 60


async def test_a_connection_keeps_nothing_of_a_request_after_its_response(
    service: _Service,
) -> None:
    state = ServerState()
    async with _listening(service, state) as server:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            long = "x" * 10_000
            writer.write(post(b"x" * 60_000, f"X-Long: {long}", path=f"/long?{long}.unread"))
            await reader.readuntil(b"unread")
        (held,) = state.connections
        assert isinstance(held, FastPathProtocol)
        assert held.cycle.response_complete
        kept = (held.cycle.body, held.scope, held.cycle.scope, held.url, held.headers)
        assert len(repr(kept)) < 2000
        writer.close()


async def test_empty_lines_do_not_keep_an_idle_connection_open(service: _Service) -> None:
    config = uvicorn.Config(service, lifespan="off", log_config=None, ws="none")
    config.timeout_keep_alive = 1

    def connection() -> FastPathProtocol:
        return FastPathProtocol(
            fast_path=service.fast_path, config=config, server_state=ServerState(), app_state={}
        )

    loop = asyncio.get_running_loop()
    async with await loop.create_server(connection, "127.0.0.1", 0) as server:
        for target in ("/ready?x", "/long?x"):
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(get(target))
                await reader.readuntil(b"x")
                writer.write(b"\r\n")
                await asyncio.sleep(0.5)
                writer.write(b"\r\n\r\n")
                await reader.read()
            writer.close()


def test_after_a_429_reading_the_connection_pauses(
    service: _Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_path_module, "READ_PAUSE_SECONDS", 0.3)
    ready = b"content-length: 2\r\nretry-after: 1\r\n\r\nno"
    monkeypatch.setattr(
        service, "fast_path", lambda _target, _headers: fast_path_module.TooManyRequests(ready)
    )
    listener = Listener(
        "internal",
        service,
        metrics=Metrics(),
        request_ids=RequestIds(),
        fast_path=service.fast_path,
    )
    with serving(listener) as (own_port,), Wire(own_port) as wire:
        began = time.monotonic()
        first, second = wire.say(get()).hear(), wire.say(get()).hear()
        # Timers start at the time of the event-loop iteration, so they may end slightly early.
        assert time.monotonic() - began > 0.2
    assert [first.status, second.status] == [429, 429]
    assert (first.header("retry-after"), first.body) == ("1", b"no")
    assert first.header("date")
