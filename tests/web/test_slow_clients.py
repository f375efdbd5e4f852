"""Clients that take their time, and many at once: they use up nothing that others need."""

import contextlib
import resource
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.telemetry.metrics import Metrics
from broker.web import descriptors, protocol
from broker.web.listener import Listener
from broker.web.request_ids import RequestIds
from tests.web.sockets import Wire, get, serving

SOON = 0.3


async def _hello(_request: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", SOON)
    app = Starlette(routes=[Route("/hello", _hello)])
    listener = Listener("public", app, metrics=Metrics(), request_ids=RequestIds())
    with serving(listener) as (port,):
        yield port


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    with Wire(port) as wire:
        assert wire.hear_the_end() == b""


def test_half_a_head_is_refused_and_its_sender_gets_to_read_it(port: int) -> None:
    with Wire(port) as wire:
        answer = wire.say(b"GET /hello HTTP/1.1\r\nHost: a\r\nX-Half").hear()
        assert (answer.status, answer.json()["code"]) == (408, "invalid_request")
        assert wire.hear_the_end() == b""


def test_half_a_head_after_a_whole_one_is_refused_too(port: int) -> None:
    with Wire(port) as wire:
        assert wire.say(get()).hear().status == 200
        assert wire.say(b"GET /hello HTTP/1.1\r\nX-Half").hear().status == 408


def test_a_connection_that_has_asked_once_may_rest(port: int) -> None:
    with Wire(port) as patient, Wire(port) as other:
        assert patient.say(get()).hear().status == 200
        # The other's end tells that more than the time for a head has gone by.
        assert other.hear_the_end() == b""
        assert patient.say(get()).hear().status == 200


def test_no_listener_holds_more_connections_than_its_share(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 3)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(port)) for _ in range(3)]
        for wire in wires:
            assert wire.say(get()).hear().status == 200
        one_more = stack.enter_context(Wire(port))
        with contextlib.suppress(ConnectionResetError):
            assert one_more.hear_the_end() == b""
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
