"""Answers given in the protocol itself, on real sockets: only what is plain, and only in turn."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from broker.server import fast_path as at_once
from broker.server.bounded_protocol import HEAD_LIMIT
from broker.server.fast_path import PromptHttpProtocol
from broker.server.listener import Listener
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import RequestIds
from tests.server.sockets import Answer, Wire, get, post, serving

_MANY_BYTES = 256 * 1024


class _Service:
    """Answers by two ways, and says by which; what it is asked for comes back in the body."""

    def __init__(self) -> None:
        self.said = 0

    def at_once(self, target: bytes, _headers: Mapping[bytes, bytes]) -> bytes | None:
        if target.startswith(b"/broken"):
            raise RuntimeError("a fault of the program's")
        if not target.startswith(b"/ready"):
            return None
        body = self._body(target)
        return b"content-length: %d\r\nx-way: at once\r\n\r\n%b" % (len(body), body)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["raw_path"] == b"/slow":
            await asyncio.sleep(0.02)
        body = self._body(scope["raw_path"] + b"?" + scope["query_string"])
        headers = [(b"content-length", b"%d" % len(body)), (b"x-way", b"long")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self, target: bytes) -> bytes:
        self.said += 1
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
        answer_at_once=service.at_once,
    )
    with serving(listener) as (port,):
        yield port


@pytest.fixture
def wire(port: int) -> Iterator[Wire]:
    with Wire(port) as wire:
        yield wire


def _way(answer: Answer) -> str | None:
    return answer.header("x-way")


def test_a_plain_request_is_answered_at_once_again_and_again(wire: Wire) -> None:
    for number in range(3):
        answer = wire.say(get(f"/ready?{number}")).hear()
        assert (answer.status, _way(answer), answer.body) == (200, "at once", b"%d" % number)


def test_the_headers_of_the_server_come_first(wire: Wire) -> None:
    answer = wire.say(get("/ready")).hear()
    assert [name for name, _ in answer.headers] == ["date", "content-length", "x-way"]
    long_way = wire.say(get("/other")).hear()
    assert answer.headers[0][1][:16] == long_way.headers[0][1][:16]


def test_what_nobody_has_ready_goes_the_long_way(wire: Wire) -> None:
    assert _way(wire.say(get("/other")).hear()) == "long"


_LONG = {
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


@pytest.mark.parametrize("said", _LONG.values(), ids=_LONG)
def test_what_is_not_plain_goes_the_long_way(port: int, said: bytes) -> None:
    with Wire(port) as wire:
        wire.say(said)
        # An answer to HEAD has no body, whatever its length says.
        if said.startswith(b"HEAD"):
            wire.say(get("/other", "Connection: close"))
            assert wire.hear_the_end().count(b"x-way: long") == 2
        else:
            assert _way(wire.hear()) == "long"


@pytest.mark.parametrize("name", ["body", "chunks", "empty body"])
def test_the_body_of_a_get_is_no_request(wire: Wire, name: str) -> None:
    assert _way(wire.say(_LONG[name]).hear()) == "long"
    assert wire.say(get("/ready?next")).hear().body == b"next"


@pytest.mark.parametrize("name", ["Connection: close", "HTTP/1.0", "HTTP/1.0, kept"])
def test_a_client_that_does_not_stay_is_told_that_the_connection_ends(
    wire: Wire, name: str
) -> None:
    answer = wire.say(_LONG[name]).hear()
    assert answer.header("connection") == "close"
    assert wire.hear_the_end() == b""


def test_a_request_whose_upgrade_was_declined_is_answered_and_the_next_too(wire: Wire) -> None:
    said = get("/ready?1", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert wire.say(said + get("/ready?2")).hear().body == b"1"
    assert wire.hear().body == b"2"


def test_a_head_in_pieces_is_answered(wire: Wire) -> None:
    for byte in get("/ready?slowly"):
        wire.say(bytes([byte]))
    assert wire.hear().body == b"slowly"
    assert _way(wire.say(get("/ready")).hear()) == "at once"


def test_a_head_that_is_too_long_is_refused(port: int) -> None:
    for pieces in (1, 4):
        said = get("/ready", "X-Long: " + "x" * HEAD_LIMIT)
        size = -(-len(said) // pieces)
        with Wire(port) as wire:
            wire.say(*(said[at : at + size] for at in range(0, len(said), size)))
            assert wire.hear().status == 431


def test_many_answers_in_one_read_count_as_no_head(wire: Wire) -> None:
    """The rest of a read is a head that has begun; what was answered is no part of it."""
    whole = get("/ready?1", "X-Fill: " + "x" * 900)
    for _ in range(5):
        wire.say(whole * 8 + whole[:500])
        assert [wire.hear().status for _ in range(8)] == [200] * 8
        assert wire.say(whole[500:]).hear().status == 200


def test_garbage_after_an_answer_is_refused(wire: Wire) -> None:
    wire.say(get("/ready?1") + b"garbage\r\n\r\n")
    assert [wire.hear().status, wire.hear().status] == [200, 400]
    assert wire.hear_the_end() == b""


# ---- several requests at a time


def test_a_ready_answer_waits_for_its_turn_behind_a_slow_one(wire: Wire) -> None:
    said = [get(f"/{'slow' if n % 3 == 0 else 'ready'}?{n}") for n in range(12)]
    wire.say(b"".join(said))
    assert [wire.hear().body for _ in said] == [b"%d" % n for n in range(12)]


def test_a_ready_answer_that_comes_while_a_slow_one_runs_waits_too(wire: Wire) -> None:
    wire.say(get("/slow?1"))
    wire.say(get("/ready?2"))
    assert [wire.hear().body, wire.hear().body] == [b"1", b"2"]


def test_more_than_get_their_answer_in_a_row_all_get_one(wire: Wire) -> None:
    wire.say(b"".join(get(f"/ready?{n}") for n in range(100)))
    answers = [wire.hear() for _ in range(100)]
    assert [answer.body for answer in answers] == [b"%d" % n for n in range(100)]
    assert {_way(answer) for answer in answers} == {"at once", "long"}
    assert _way(wire.say(get("/ready")).hear()) == "at once"


def test_who_does_not_read_is_not_answered_without_end(
    port: int, service: _Service, wire: Wire
) -> None:
    with Wire(port) as other:
        for _ in range(200):
            wire.say(get("/ready?many"))
            # Once this is answered, the one before it has been read.
            assert other.say(get("/ready?ok")).hear().body == b"ok"
    # Some dozens fill what the kernel holds for both ends.
    assert service.said - 200 < 120
    assert {len(wire.hear().body) for _ in range(200)} == {_MANY_BYTES}
    assert service.said - 200 == 200


# ---- the ends


def test_a_fault_costs_nobody_the_answer(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert _way(wire.say(get("/broken")).hear()) == "long"
    assert "no answer at once" in caplog.text


def test_a_connection_that_was_answered_does_not_hold_up_the_end(service: _Service) -> None:
    listener = Listener(
        "internal",
        service,
        metrics=Metrics(),
        request_ids=RequestIds(),
        answer_at_once=service.at_once,
    )
    with serving(listener) as (port,):
        wire = Wire(port)
        assert _way(wire.say(get("/ready")).hear()) == "at once"
    assert wire.hear_the_end() == b""
    wire.__exit__()


@asynccontextmanager
async def _listening(
    service: _Service, state: ServerState, *, keep_alive: int = 5
) -> AsyncIterator[asyncio.Server]:
    """The protocol alone; `keep_alive` in seconds, uvicorn's own unless given."""
    config = uvicorn.Config(
        service, lifespan="off", log_config=None, ws="none", timeout_keep_alive=keep_alive
    )

    def connection() -> PromptHttpProtocol:
        return PromptHttpProtocol(
            answer_at_once=service.at_once, config=config, server_state=state, app_state={}
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
                    assert (await reader.readuntil(b"\r\n\r\n%02d" % number)).count(b"at once") == 1
                await asyncio.sleep(0.1)
            assert await reader.read() == b""
            assert loop.time() - began > 4.9
            writer.close()
            while state.connections:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
    assert state.total_requests == 60


async def test_what_was_sent_does_not_stay_with_the_connection(
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
        assert isinstance(held, PromptHttpProtocol)
        assert held.cycle.response_complete
        kept = (held.cycle.body, held.scope, held.cycle.scope, held.url, held.headers)
        assert len(repr(kept)) < 2000
        writer.close()


async def test_empty_lines_do_not_keep_an_idle_connection(service: _Service) -> None:
    config = uvicorn.Config(service, lifespan="off", log_config=None, ws="none")
    config.timeout_keep_alive = 1

    def connection() -> PromptHttpProtocol:
        return PromptHttpProtocol(
            answer_at_once=service.at_once, config=config, server_state=ServerState(), app_state={}
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


def test_a_refusal_is_a_429_and_its_connection_rests(
    service: _Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_once, "REST_SECONDS", 0.3)
    ready = b"content-length: 2\r\nretry-after: 1\r\n\r\nno"
    monkeypatch.setattr(service, "at_once", lambda _target, _headers: at_once.Refused(ready))
    listener = Listener(
        "internal",
        service,
        metrics=Metrics(),
        request_ids=RequestIds(),
        answer_at_once=service.at_once,
    )
    with serving(listener) as (own_port,), Wire(own_port) as wire:
        began = time.monotonic()
        first, second = wire.say(get()).hear(), wire.say(get()).hear()
        # Timers go by the time at which a round began, and so may end a little early.
        assert time.monotonic() - began > 0.2
    assert [first.status, second.status] == [429, 429]
    assert (first.header("retry-after"), first.body) == ("1", b"no")
    assert first.header("date")
