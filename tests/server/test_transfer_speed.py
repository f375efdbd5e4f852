"""Slow clients and many connections: neither exhausts what other clients need."""

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.server import bounded_protocol, file_descriptors, transfer_speed
from broker.server.listener import Listener
from broker.server.request_head import HEAD_SECONDS, MAX_HEADERS
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import RequestIds
from tests.server.sockets import Wire, get, post, serving
from tests.server.timers import TimedLoop

SOON = 0.3

_MUCH = 64 * 1024 * 1024
"""Bytes; more than the system buffers."""


_CHECKS = 20
"""By then the system has buffered all that it can."""


async def _hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


def test_a_connection_without_a_request_is_closed(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire, Wire(port) as later:
        # When this one is answered, the other has been accepted as well.
        later.say(get()).hear()
        loop.let_pass(HEAD_SECONDS)
        assert wire.hear_the_end() == b""


def test_an_incomplete_head_is_refused_and_its_sender_can_read_the_refusal(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire, Wire(port) as later:
        wire.say(b"GET /hello HTTP/1.1\r\nHost: a\r\nX-Half")
        later.say(get()).hear()
        loop.let_pass(HEAD_SECONDS)
        answer = wire.hear()
        assert (answer.status, answer.json()["code"]) == (408, "invalid_request")
        assert wire.hear_the_end() == b""


def test_an_incomplete_head_after_a_complete_one_is_refused_too(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire, Wire(port) as later:
        assert wire.say(get()).hear().status == 200
        wire.say(b"GET /hello HTTP/1.1\r\nX-Half")
        later.say(get()).hear()
        loop.let_pass(HEAD_SECONDS)
        assert wire.hear().status == 408


def test_a_connection_that_has_sent_a_request_may_be_idle(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as other, Wire(port) as patient:
        assert patient.say(get()).hear().status == 200
        loop.let_pass(HEAD_SECONDS)
        assert other.hear_the_end() == b""
        assert patient.say(get()).hear().status == 200


def test_no_listener_holds_more_connections_than_its_limit(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_protocol, "max_connections", lambda: 3)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(3)]
        for wire in wires:
            assert wire.say(get()).hear().status == 200
        assert stack.enter_context(Wire(port)).hear_the_end() == b""
        assert wires[0].say(get()).hear().status == 200


def test_three_listeners_leave_a_quarter_of_the_descriptors_free() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        assert file_descriptors.max_connections() == min(soft, 400) // 4
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_descriptor_limit_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 400), hard))
    try:
        file_descriptors.raise_limit()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def _much(_request: Request) -> Response:
    return PlainTextResponse("x" * _MUCH)


async def _ignore_body(_request: Request) -> Response:
    return PlainTextResponse("not read", status_code=401)


@pytest.fixture
def port() -> Iterator[int]:
    """A listener with the product's time limits."""
    with _serving_all() as port:
        yield port


@contextlib.contextmanager
def _serving_all(loop: TimedLoop | None = None) -> Iterator[int]:
    app = Starlette(
        routes=[
            Route("/hello", _hello),
            Route("/echo", _echo, methods=["POST"]),
            Route("/ignore", _ignore_body, methods=["POST"]),
            Route("/much", _much),
        ]
    )
    listener = Listener("public", app, metrics=Metrics(), request_ids=RequestIds())
    with serving(listener, loop=loop) as (port,):
        yield port


@pytest.fixture
def loop() -> TimedLoop:
    """For a listener with the product's time limits, whose time passes when the test says so."""
    return TimedLoop()


@pytest.fixture
def strict_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A listener that checks the speed of its clients often."""
    monkeypatch.setattr(transfer_speed, "BODY_CHECK_SECONDS", SOON)
    with _serving_all() as port:
        yield port


def test_a_body_that_stops_is_refused_and_its_sender_can_read_the_refusal(strict_port: int) -> None:
    with Wire(strict_port) as wire:
        answer = wire.say(post(b"x" * 100)[:-1]).hear()
        assert (answer.status, answer.json()["field"]) == (408, "body")
        assert wire.hear_the_end() == b""


def test_a_body_that_arrives_too_slowly_is_refused(strict_port: int) -> None:
    with Wire(strict_port) as wire:
        wire.say(post(b"x" * 1000)[:-1000])
        for _ in range(4):
            time.sleep(SOON / 3)
            with contextlib.suppress(OSError):
                wire.say(b"x")
        assert wire.hear().status == 408


def test_a_steady_body_may_last_for_several_checks(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        body = b"x" * 48_000
        wire.say(post(body)[: -len(body)])
        for start in range(0, len(body), 12_000):
            wire.say(body[start : start + 12_000])
            loop.let_pass(transfer_speed.BODY_CHECK_SECONDS)
        assert wire.hear().body == body


def test_a_steady_body_must_end_in_time(strict_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_speed, "BODY_SECONDS", 3 * SOON)
    with Wire(strict_port) as wire:
        wire.say(post(b"x" * 100_000)[:-100_000])
        with contextlib.suppress(OSError):
            for _ in range(20):
                time.sleep(SOON / 4)
                wire.say(b"x" * 1000)
        assert wire.hear().status == 408


def test_the_rest_of_an_ignored_body_must_arrive_in_time(strict_port: int) -> None:
    with Wire(strict_port) as wire:
        assert wire.say(post(b"x" * 100, path="/ignore")[:-1]).hear().status == 401
        assert wire.hear_the_end() == b""


def test_after_a_body_that_ends_behind_its_response_the_connection_may_be_idle(
    loop: TimedLoop,
) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        request_bytes = post(b"x" * 100, path="/ignore")
        assert wire.say(request_bytes[:-1]).hear().status == 401
        wire.say(request_bytes[-1:])
        loop.let_pass(transfer_speed.BODY_CHECK_SECONDS)
        assert wire.say(get()).hear().status == 200


def test_chunks_with_too_much_overhead_are_refused(strict_port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Wire(strict_port) as wire:
        wire.say(head)
        with contextlib.suppress(OSError):
            for _ in range(100):
                wire.say(b"1;" + b"e" * 2000 + b"\r\nx\r\n")
        assert wire.hear().status == 400


def test_trailers_are_bounded(strict_port: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    with Wire(strict_port) as wire:
        wire.say(head)
        with contextlib.suppress(OSError):
            for _ in range(200):
                wire.say(b"X-Trailer: " + b"t" * 1000 + b"\r\n")
        assert wire.hear().status == 400


@pytest.mark.parametrize(
    "headers", [(), ("Connection: close",)], ids=["kept open", "last response"]
)
def test_a_client_that_does_not_read_its_response_is_cut_off(
    loop: TimedLoop, headers: Sequence[str]
) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        wire.say(get("/much", *headers))
        received = wire.hear_some()
        for _ in range(_CHECKS):
            loop.let_pass(transfer_speed.RESPONSE_CHECK_SECONDS)
        assert received + _read(wire) < _MUCH


def test_a_client_that_reads_steadily_gets_the_whole_response(loop: TimedLoop) -> None:
    with _serving_all(loop) as port, Wire(port) as wire:
        wire.say(get("/much", "Connection: close"))
        count = since_check = 0
        while more := wire.hear_some():
            count += more
            since_check += more
            # Far more than the system buffers, so that some has left the write buffer.
            if since_check > _MUCH // 4:
                since_check = 0
                loop.let_pass(transfer_speed.RESPONSE_CHECK_SECONDS)
        assert count >= _MUCH


def _read(wire: Wire) -> int:
    """Return how many bytes arrive before the server closes the connection."""
    count = 0
    with contextlib.suppress(ConnectionError):
        while more := wire.hear_some():
            count += more
    return count


def test_too_many_headers_are_refused(port: int) -> None:
    enough = [f"X-{number}: a" for number in range(MAX_HEADERS - 1)]
    with Wire(port) as wire:
        assert wire.say(get("/hello", *enough)).hear().status == 200
        answer = wire.say(get("/hello", *enough, "X-More: a")).hear()
        assert (answer.status, answer.json()["field"]) == (431, "headers")


def test_one_address_leaves_connections_to_others(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_protocol, "max_connections", lambda: 8)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(6)]
        for wire in wires:
            assert wire.say(get()).hear().status == 200
        assert stack.enter_context(Wire(port)).hear_the_end() == b""
        other = stack.enter_context(Wire(port, source="127.0.0.2"))
        assert other.say(get()).hear().status == 200
