"""Clients that take their time, and many at once: they use up nothing that others need."""

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.server import bounded_protocol as protocol
from broker.server import file_descriptors as descriptors
from broker.server import slow_clients as slowness
from broker.server.listener import Listener
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import RequestIds
from tests.server.sockets import Wire, get, post, serving
from tests.server.timers import TimedLoop

SOON = 0.3

_MUCH = 64 * 1024 * 1024
"""Bytes; more than the system takes off our hands."""


_LOOKS = 20
"""In which the system has long taken all that it will."""


async def _hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


def test_a_connection_that_says_nothing_is_closed(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire, Wire(port) as later:
        # Once this one is answered, the other has been let in as well.
        later.say(get()).hear()
        loop.let_pass(protocol.HEAD_SECONDS)
        assert wire.hear_the_end() == b""


def test_half_a_head_is_refused_and_its_sender_gets_to_read_it(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire, Wire(port) as later:
        wire.say(b"GET /hello HTTP/1.1\r\nHost: a\r\nX-Half")
        later.say(get()).hear()
        loop.let_pass(protocol.HEAD_SECONDS)
        answer = wire.hear()
        assert (answer.status, answer.json()["code"]) == (408, "invalid_request")
        assert wire.hear_the_end() == b""


def test_half_a_head_after_a_whole_one_is_refused_too(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire, Wire(port) as later:
        assert wire.say(get()).hear().status == 200
        wire.say(b"GET /hello HTTP/1.1\r\nX-Half")
        later.say(get()).hear()
        loop.let_pass(protocol.HEAD_SECONDS)
        assert wire.hear().status == 408


def test_a_connection_that_has_asked_once_may_rest(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as other, Wire(port) as patient:
        assert patient.say(get()).hear().status == 200
        loop.let_pass(protocol.HEAD_SECONDS)
        assert other.hear_the_end() == b""
        assert patient.say(get()).hear().status == 200


def test_no_listener_holds_more_connections_than_its_share(
    calm_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 3)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(calm_port)) for _ in range(3)]
        for wire in wires:
            assert wire.say(get()).hear().status == 200
        assert stack.enter_context(Wire(calm_port)).hear_the_end() == b""
        assert wires[0].say(get()).hear().status == 200


def test_three_listeners_leave_a_quarter_of_the_descriptors_to_the_rest() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        assert descriptors.most_connections() == min(soft, 400) // 4
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_is_raised_as_far_as_it_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        descriptors.raise_limit()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def _much(_request: Request) -> Response:
    return PlainTextResponse("x" * _MUCH)


async def _deaf(_request: Request) -> Response:
    return PlainTextResponse("not read", status_code=401)


@pytest.fixture
def calm_port() -> Iterator[int]:
    """A listener with all its patience."""
    with _serving_all() as port:
        yield port


@contextlib.contextmanager
def _serving_all(loop: TimedLoop | None = None) -> Iterator[int]:
    app = Starlette(
        routes=[
            Route("/hello", _hello),
            Route("/echo", _echo, methods=["POST"]),
            Route("/deaf", _deaf, methods=["POST"]),
            Route("/much", _much),
        ]
    )
    listener = Listener("public", app, metrics=Metrics(), request_ids=RequestIds())
    with serving(listener, loop=loop) as (port,):
        yield port


@pytest.fixture
def loop() -> TimedLoop:
    """For a listener with all its patience, whose time passes when the test says so."""
    return TimedLoop()


@pytest.fixture
def hasty_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A listener that looks often at how slow its clients are."""
    monkeypatch.setattr(slowness, "LOOK_SECONDS", SOON)
    with _serving_all() as port:
        yield port


def test_a_body_that_stops_is_refused_and_its_sender_gets_to_read_it(hasty_port: int) -> None:
    with Wire(hasty_port) as wire:
        answer = wire.say(post(b"x" * 100)[:-1]).hear()
        assert (answer.status, answer.json()["field"]) == (408, "body")
        assert wire.hear_the_end() == b""


def test_a_body_that_drips_is_refused(hasty_port: int) -> None:
    with Wire(hasty_port) as wire:
        wire.say(post(b"x" * 1000)[:-1000])
        for _ in range(4):
            time.sleep(SOON / 3)
            with contextlib.suppress(OSError):
                wire.say(b"x")
        assert wire.hear().status == 408


def test_a_body_that_comes_steadily_may_take_several_looks(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        body = b"x" * 48_000
        wire.say(post(body)[: -len(body)])
        for start in range(0, len(body), 12_000):
            wire.say(body[start : start + 12_000])
            loop.let_pass(slowness.LOOK_SECONDS)
        assert wire.hear().body == body


def test_even_a_steady_body_must_end(hasty_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowness, "BODY_SECONDS", 3 * SOON)
    with Wire(hasty_port) as wire:
        wire.say(post(b"x" * 100_000)[:-100_000])
        with contextlib.suppress(OSError):
            for _ in range(20):
                time.sleep(SOON / 4)
                wire.say(b"x" * 1000)
        assert wire.hear().status == 408


def test_the_rest_of_a_body_that_nobody_wanted_must_come_soon_too(hasty_port: int) -> None:
    with Wire(hasty_port) as wire:
        assert wire.say(post(b"x" * 100, path="/deaf")[:-1]).hear().status == 401
        assert wire.hear_the_end() == b""


def test_after_a_body_that_came_behind_its_answer_the_connection_may_rest(
    loop: TimedLoop,
) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        said = post(b"x" * 100, path="/deaf")
        assert wire.say(said[:-1]).hear().status == 401
        wire.say(said[-1:])
        loop.let_pass(slowness.LOOK_SECONDS)
        assert wire.say(get()).hear().status == 200


def test_chunks_that_hold_next_to_nothing_are_refused(hasty_port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Wire(hasty_port) as wire:
        wire.say(head)
        with contextlib.suppress(OSError):
            for _ in range(100):
                wire.say(b"1;" + b"e" * 2000 + b"\r\nx\r\n")
        assert wire.hear().status == 400


def test_trailers_have_an_end(hasty_port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    with Wire(hasty_port) as wire:
        wire.say(head)
        with contextlib.suppress(OSError):
            for _ in range(200):
                wire.say(b"X-Trailer: " + b"t" * 1000 + b"\r\n")
        assert wire.hear().status == 400


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["stays", "last"])
def test_who_does_not_read_its_answer_is_cut_off(loop: TimedLoop, headers: Sequence[str]) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        wire.say(get("/much", *headers))
        began = wire.hear_some()
        for _ in range(_LOOKS):
            loop.let_pass(slowness.UNREAD_SECONDS)
        assert began + _read(wire) < _MUCH


def test_who_reads_its_answer_steadily_gets_all_of_it(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        wire.say(get("/much", "Connection: close"))
        count = since_look = 0
        while more := wire.hear_some():
            count += more
            since_look += more
            # Far more than the system holds, so that some was taken off our hands meanwhile.
            if since_look > _MUCH // 4:
                since_look = 0
                loop.let_pass(slowness.UNREAD_SECONDS)
        assert count >= _MUCH


def _read(wire: Wire) -> int:
    """How many bytes come before the server hangs up."""
    count = 0
    with contextlib.suppress(ConnectionError):
        while more := wire.hear_some():
            count += more
    return count


def test_more_headers_than_anybody_needs_are_refused(calm_port: int) -> None:
    enough = [f"X-{number}: a" for number in range(protocol.HEADERS_AT_MOST - 1)]
    with Wire(calm_port) as wire:
        assert wire.say(get("/hello", *enough)).hear().status == 200
        answer = wire.say(get("/hello", *enough, "X-More: a")).hear()
        assert (answer.status, answer.json()["field"]) == (431, "headers")


def test_one_address_leaves_connections_to_others(
    calm_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 8)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(calm_port)) for _ in range(6)]
        for wire in wires:
            assert wire.say(get()).hear().status == 200
        assert stack.enter_context(Wire(calm_port)).hear_the_end() == b""
        other = stack.enter_context(Wire(calm_port, source="127.0.0.2"))
        assert other.say(get()).hear().status == 200
