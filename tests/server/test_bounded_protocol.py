"""The listeners on real sockets: bounds, readable refusals, keep-alive, start and stop."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.app import StartError, serve_until
from broker.server.fast_path import FastPath
from broker.server.listener import Listener
from broker.server.request_head import HEAD_LIMIT
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen, load_settings
from broker.telemetry.metrics import Metrics
from broker.web.bodies import BODY_LIMIT, read_json_object
from broker.web.errors import INTERNAL_HANDLERS
from broker.web.request_ids import RequestIds
from tests.server.sockets import Wire, get, post, serving

MEGABYTE = 1_000_000
PROBLEM = "application/problem+json"


async def _hello(request: Request) -> Response:
    return JSONResponse({"path": request.scope["path"], "query": request.url.query})


async def _echo(request: Request) -> Response:
    return JSONResponse(await read_json_object(request))


async def _count(request: Request) -> Response:
    return JSONResponse({"bytes": len(await request.body())})


async def _header_names(request: Request) -> Response:
    await request.body()
    return JSONResponse({"names": sorted(request.headers)})


async def _ignore_body(_request: Request) -> Response:
    return JSONResponse({})


def _hello_fast(target: bytes, _headers: Mapping[bytes, bytes]) -> bytes | None:
    """The same response as `_hello`."""
    path, _, query = target.decode().partition("?")
    if path != "/hello":
        return None
    response = JSONResponse({"path": path, "query": query}, headers={"x-request-id": uuid4().hex})
    return b"".join(b"%b: %b\r\n" % each for each in response.raw_headers) + b"\r\n" + response.body


def _app(fast_path: FastPath | None = None) -> ASGIApp:
    routes = [
        Route("/hello", _hello),
        Route("/echo", _echo, methods=["POST"]),
        Route("/count", _count, methods=["GET", "POST"]),
        Route("/headers", _header_names, methods=["POST"]),
        Route("/ignore", _ignore_body, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers=INTERNAL_HANDLERS)
    return Listener(
        "internal",
        app,
        metrics=Metrics(),
        request_ids=RequestIds(),
        fast_path=fast_path,
    )


@pytest.fixture(scope="module", params=[None, _hello_fast], ids=["application", "fast path"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with serving(_app(request.param)) as (port,):
        yield port


@pytest.fixture
def wire(port: int) -> Iterator[Wire]:
    with Wire(port) as wire:
        yield wire


def _assert_head_too_long(wire: Wire) -> None:
    answer = wire.hear()
    assert answer.status == 431
    assert answer.header("content-type") == PROBLEM
    assert answer.header("connection") == "close"
    assert answer.header("cache-control") == "no-store"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["field"] == "headers"
    assert wire.hear_the_end() == b""


def _assert_not_http(wire: Wire) -> None:
    answer = wire.hear()
    assert (answer.status, answer.header("content-type")) == (400, PROBLEM)
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.json()["code"] == "invalid_request"
    assert wire.hear_the_end() == b""


# ---- heads


@pytest.mark.parametrize(
    "faulty",
    [
        get("/hello", "X-Long: " + "x" * HEAD_LIMIT),
        get("/hello", *(f"X-{number}: a" for number in range(101))),
        get("/hello", "Transfer-Encoding: gzip, chunked"),
        b"KEEP / HTTP/1.1\r\nHost: broker\r\n\r\n",
    ],
    ids=["long", "many", "framing", "not http"],
)
def test_a_request_refused_by_the_protocol_has_a_request_id(wire: Wire, faulty: bytes) -> None:
    wire.say(get("/hello", "X-Request-Id: of-the-previous"))
    wire.hear()
    wire.say(faulty)
    answer = wire.hear()
    assert answer.header("x-request-id") == answer.json()["request_id"]
    assert answer.json()["request_id"] not in ("", "of-the-previous")


def test_a_request_refused_for_its_head_keeps_its_own_request_id(wire: Wire) -> None:
    wire.say(get("/hello", "X-Request-Id: mine-1", "Transfer-Encoding: gzip, chunked"))
    answer = wire.hear()
    assert (answer.header("x-request-id"), answer.json()["request_id"]) == ("mine-1", "mine-1")


@pytest.mark.parametrize("size", [MEGABYTE, 3 * MEGABYTE, HEAD_LIMIT + 1])
def test_a_header_that_is_too_long_is_refused_and_its_sender_can_read_the_refusal(
    wire: Wire, size: int
) -> None:
    wire.say(get("/hello", "X-Long: " + "x" * size))
    _assert_head_too_long(wire)


def test_a_url_that_is_too_long_is_refused(wire: Wire) -> None:
    wire.say(get("/" + "x" * MEGABYTE))
    _assert_head_too_long(wire)


def test_a_query_that_is_too_long_is_refused(wire: Wire) -> None:
    wire.say(get("/hello?" + "x" * MEGABYTE))
    _assert_head_too_long(wire)


def test_many_small_headers_that_are_too_long_together_are_refused(wire: Wire) -> None:
    wire.say(get("/hello", *(f"X-{number}: {'x' * 20}" for number in range(2000))))
    _assert_head_too_long(wire)


def test_a_header_in_small_pieces_is_refused_at_the_limit(wire: Wire) -> None:
    wire.say(b"GET /hello HTTP/1.1\r\nHost: broker.test\r\nX-Long: ")
    wire.say(*(b"x" * 512 for _ in range(HEAD_LIMIT // 512)))
    _assert_head_too_long(wire)


def test_headers_that_arrive_one_by_one_are_refused_at_the_limit(wire: Wire) -> None:
    wire.say(b"GET /hello HTTP/1.1\r\nHost: broker.test\r\n")
    wire.say(*(b"X-%d: %s\r\n" % (number, b"x" * 100) for number in range(400)))
    _assert_head_too_long(wire)


def test_a_head_just_within_the_limit_is_served(wire: Wire) -> None:
    length = HEAD_LIMIT - len(get("/hello", "X-Long: "))
    assert wire.say(get("/hello", "X-Long: " + "x" * length)).hear().status == 200


def test_a_head_within_the_limit_is_served_in_any_pieces(wire: Wire) -> None:
    request = get("/hello", "X-Long: " + "x" * 20_000)
    pieces = [request[start : start + 777] for start in range(0, len(request), 777)]
    for _ in range(3):
        assert wire.say(*pieces).hear().status == 200


def test_a_long_head_behind_a_short_one_is_refused(wire: Wire) -> None:
    wire.say(get() + get("/hello", "X-Long: " + "x" * 100_000))
    assert wire.hear().status == 200
    _assert_head_too_long(wire)


def test_requests_before_a_refused_head_are_answered_first(wire: Wire) -> None:
    paths = ["/hello?1", "/hello?2", "/hello?3"]
    wire.say(b"".join(map(get, paths)) + get("/hello", "X-Long: " + "x" * MEGABYTE))
    assert [wire.hear().json()["query"] for _ in paths] == ["1", "2", "3"]
    _assert_head_too_long(wire)


def test_a_long_head_behind_a_body_is_refused(wire: Wire) -> None:
    wire.say(post(b"{}")[:-2], b"{}" + get("/hello", "X-Long: " + "x" * 100_000))
    assert wire.hear().json() == {}
    _assert_head_too_long(wire)


def test_a_long_body_does_not_count_towards_the_next_head(wire: Wire) -> None:
    head = get("/hello", "X-Long: " + "x" * 2000)
    wire.say(post(b"x" * 60_000, path="/ignore") + head[:1000])
    assert wire.hear().status == 200
    assert wire.say(head[1000:]).hear().status == 200


# ---- bodies


def test_a_body_that_is_too_long_is_refused_and_its_sender_can_read_the_refusal(wire: Wire) -> None:
    answer = wire.say(post(b"x" * MEGABYTE)).hear()
    assert (answer.status, answer.header("content-type")) == (413, PROBLEM)
    assert answer.json()["field"] == "body"


def test_the_connection_stays_open_after_a_body_that_was_too_long(wire: Wire) -> None:
    for _ in range(6):  # Together they exceed what is read of a single body.
        assert wire.say(post(b"x" * MEGABYTE)).hear().status == 413
    assert wire.say(get()).hear().status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_sender_whose_connection_ends_can_read_the_refusal(wire: Wire, version: str) -> None:
    request = post(b"x" * 3 * MEGABYTE, "Connection: close")
    wire.say(request.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))
    assert wire.hear().status == 413
    assert wire.hear_the_end() == b""


def test_a_chunked_body_that_is_too_long_is_refused(wire: Wire) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    wire.say(_chunked_head("/echo"), *(chunk for _ in range(4)), b"0\r\n\r\n")
    assert wire.hear().status == 413
    assert wire.say(get()).hear().status == 200


def test_a_chunked_body_within_the_limit_is_read(wire: Wire) -> None:
    wire.say(_chunked_head("/echo"), b"5\r\n", b'{"a":\r\n', b"3\r\n 1}\r\n", b"0\r\n\r\n")
    assert wire.hear().json() == {"a": 1}


def test_a_body_that_never_ends_is_cut_off(wire: Wire) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    wire.say(_chunked_head("/echo"))
    with pytest.raises(OSError, match=r"reset|Broken pipe"):  # noqa: PT012  (which write fails is open)
        for _ in range(2000):
            wire.say(chunk)


def test_a_body_just_within_the_limit_is_read(wire: Wire) -> None:
    body = b'{"a":"' + b"x" * (BODY_LIMIT - 8) + b'"}'
    assert wire.say(post(body)).hear().status == 200


def test_an_unread_body_does_not_affect_the_next_request(wire: Wire) -> None:
    assert wire.say(post(b"x" * 500_000, path="/ignore")).hear().status == 200
    assert wire.say(get()).hear().status == 200


def test_a_client_that_waits_for_100_continue_is_refused_before_it_sends_its_body(
    wire: Wire,
) -> None:
    head = post(b"x" * MEGABYTE, "Expect: 100-continue")[:-MEGABYTE]
    assert wire.say(head).hear().status == 413


def test_a_client_that_waits_for_100_continue_gets_it(wire: Wire) -> None:
    assert wire.say(post(b"{}", "Expect: 100-continue")[:-2]).hear().status == 100
    assert wire.say(b"{}").hear().json() == {}


def _chunked_head(path: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: broker.test\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()


# ---- several requests on one connection


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/nothing/here"), 404),
        (get("/echo"), 405),
        (post(b"{"), 400),
        (post(b"[]"), 400),
        (post(b"{}").replace(b"application/json", b"text/plain"), 415),
    ],
)
def test_the_connection_stays_open_after_a_refusal(
    wire: Wire, request_bytes: bytes, status: int
) -> None:
    for _ in range(2):
        assert wire.say(request_bytes).hear().status == status
        assert wire.say(get()).hear().status == 200


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    wire.say(b"".join(get(f"/hello?{number}") for number in range(50)))
    assert [wire.hear().json()["query"] for _ in range(50)] == [str(n) for n in range(50)]


def test_pipelined_bodies_are_kept_apart(wire: Wire) -> None:
    wire.say(b"".join(post(b'{"a": %d}' % number) for number in range(20)))
    assert [wire.hear().json()["a"] for _ in range(20)] == list(range(20))


def test_each_request_of_a_connection_has_its_own_request_id(wire: Wire) -> None:
    ids = {wire.say(get()).hear().header("x-request-id") for _ in range(3)}
    assert len(ids - {None}) == 3


# ---- invalid or ambiguous requests (request smuggling, RFC 9112 §11.2)

_HOST = b"Host: broker.test\r\n"
AMBIGUOUS = {
    "both lengths": _HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way": (
        _HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": _HOST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /",
    "one length twice": _HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nG",
    "lengths in a list": _HOST + b"Content-Length: 1, 1\r\n\r\nG",
    "signed length": _HOST + b"Content-Length: +1\r\n\r\nG",
    "negative length": _HOST + b"Content-Length: -1\r\n\r\nG",
    "hexadecimal length": _HOST + b"Content-Length: 0x1\r\n\r\nG",
    "huge length": _HOST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "space before the colon": _HOST + b"Content-Length : 5\r\n\r\n",
    "folded line": _HOST + b"X-Folded: a\r\n b\r\n\r\n",
    "folded length": _HOST + b"Content-Length:\r\n 5\r\n\r\nhello",
    "first line folded": b" Host: broker.test\r\n\r\n",
    "bare CR in a value": _HOST + b"X-Bare: a\rContent-Length: 5\r\n\r\n",
    "bare LF in a value": _HOST + b"X-Bare: a\nContent-Length: 5\r\n\r\n",
    "bare LF at the end": b"Host: broker.test\n\n",
    "NUL in a value": _HOST + b"X-Nul: a\0b\r\n\r\n",
    "NUL in a name": _HOST + b"X-N\0ul: a\r\n\r\n",
    "unknown coding": _HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity coding": _HOST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked not last": _HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunk without a length": _HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "chunks with bare LF": _HOST + b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    "chunk longer than it says": _HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_an_ambiguous_request_is_refused(wire: Wire, rest: bytes) -> None:
    wire.say(b"POST /count HTTP/1.1\r\n" + rest)
    _assert_not_http(wire)


def test_bytes_after_an_ambiguous_request_are_not_parsed_as_a_request(wire: Wire) -> None:
    wire.say(b"POST /count HTTP/1.1\r\n" + AMBIGUOUS["both lengths"] + get())
    _assert_not_http(wire)


@pytest.mark.parametrize(
    "request_bytes",
    [
        get().replace(_HOST, b""),
        get("/hello", "Host: elsewhere.test"),
        get("/hello", "Host: broker.test"),
        post(b"{}").replace(_HOST, b""),
    ],
    ids=["none", "two", "one twice", "none, with a body"],
)
def test_a_request_without_exactly_one_host_is_refused(wire: Wire, request_bytes: bytes) -> None:
    wire.say(request_bytes)
    _assert_not_http(wire)


UNKNOWN_CODINGS = {
    "gzip before chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "gzip in a line before": b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "nothing before chunked": b"Transfer-Encoding: ,chunked\r\n",
}


@pytest.mark.parametrize("line", UNKNOWN_CODINGS.values(), ids=UNKNOWN_CODINGS)
def test_a_body_in_an_unsupported_coding_is_refused(wire: Wire, line: bytes) -> None:
    wire.say(b"POST /count HTTP/1.1\r\n" + _HOST + line + b"\r\n1\r\na\r\n0\r\n\r\n")
    answer = wire.hear()
    assert (answer.status, answer.header("content-type")) == (400, PROBLEM)
    assert (answer.json()["code"], answer.json()["field"]) == (
        "invalid_request",
        "transfer-encoding",
    )
    assert wire.hear_the_end() == b""


def test_the_name_of_a_coding_is_case_insensitive(wire: Wire) -> None:
    head = b"POST /count HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: Chunked \r\n"
    assert wire.say(head + b"\r\n1\r\na\r\n0\r\n\r\n").hear().json() == {"bytes": 1}


OTHER_VERSIONS = {
    "chunks in 1.0": (
        b"POST /count HTTP/1.0\r\n"
        + _HOST
        + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    ),
    "2.0 in lines": b"GET /hello HTTP/2.0\r\n" + _HOST + b"\r\n",
    "2.0 without a host": b"GET /hello HTTP/2.0\r\n\r\n",
    "0.9 with a head": b"GET /hello HTTP/0.9\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", OTHER_VERSIONS.values(), ids=OTHER_VERSIONS)
def test_a_request_that_does_not_match_its_version_is_refused(
    wire: Wire, request_bytes: bytes
) -> None:
    wire.say(request_bytes + get())
    _assert_not_http(wire)


def test_http_1_0_needs_no_host(wire: Wire) -> None:
    wire.say(get().replace(_HOST, b"").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert wire.hear().status == 200


def test_a_trailer_is_not_a_header(wire: Wire) -> None:
    trailers = b"X-Request-Id: of-a-trailer\r\nAuthorization: Bearer of-a-trailer\r\n"
    wire.say(_chunked_head("/headers") + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
    answer = wire.hear()
    assert answer.json() == {"names": ["content-type", "host", "transfer-encoding"]}
    assert answer.header("x-request-id") != "of-a-trailer"
    assert wire.say(get()).hear().status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a plain listener.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /hello HTTP/9.9\r\n\r\n",
        b"get /hello HTTP/1.1\r\n\r\n",
        b"CONNECT broker.test:1 HTTP/1.1\r\nHost: broker.test:1\r\n\r\n",
        "GET /h\u00e9llo HTTP/1.1\r\nHost: broker.test\r\n\r\n".encode(),
        b"\x00" * 1000,
    ],
)
def test_bytes_that_are_not_http_are_refused(wire: Wire, garbage: bytes) -> None:
    wire.say(garbage)
    _assert_not_http(wire)


def test_a_sender_of_much_garbage_can_read_the_refusal(wire: Wire) -> None:
    wire.say(b"\x16\x03\x01" + b"g" * MEGABYTE)
    _assert_not_http(wire)


def test_requests_before_the_garbage_are_answered_first(wire: Wire) -> None:
    wire.say(get("/hello?1") + get("/hello?2") + b"garbage\r\n\r\n")
    assert [wire.hear().status, wire.hear().status] == [200, 200]
    _assert_not_http(wire)


# ---- upgrades

_H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


def test_an_upgrade_is_declined_and_the_request_answered(wire: Wire) -> None:
    assert wire.say(get("/hello", *_H2C)).hear().status == 200
    assert wire.say(get("/hello")).hear().status == 200


def test_the_body_of_a_request_with_an_upgrade_is_read(wire: Wire) -> None:
    assert wire.say(post(b'{"a": 1}', *_H2C)).hear().json() == {"a": 1}


def test_the_body_of_a_request_with_an_upgrade_is_not_parsed_as_a_request(wire: Wire) -> None:
    smuggled = get("/hello?smuggled")
    head = post(smuggled, *_H2C, path="/count")[: -len(smuggled)]
    wire.say(head, smuggled)
    assert wire.hear().json() == {"bytes": len(smuggled)}
    assert wire.say(get("/hello?next")).hear().json()["query"] == "next"


def test_a_request_pipelined_after_an_upgrade_is_answered(wire: Wire) -> None:
    wire.say(post(b"{}", *_H2C) + get("/hello?next"))
    assert wire.hear().json() == {}
    assert wire.hear().json()["query"] == "next"


def test_a_websocket_is_declined(wire: Wire) -> None:
    answer = wire.say(get("/hello", "Connection: Upgrade", "Upgrade: websocket")).hear()
    assert answer.status == 200


# ---- several listeners, their start and stop


def test_the_listeners_share_no_path() -> None:
    async def here(_request: Request) -> Response:
        return Response("here")

    apps = [Starlette(routes=[Route(path, here)]) for path in ("/one", "/two")]
    statuses = {}
    with serving(*apps) as ports:
        for port in ports:
            for path in ("/one", "/two"):
                with Wire(port) as wire:
                    statuses[ports.index(port), path] = wire.say(get(path)).hear().status
    assert statuses == {(0, "/one"): 200, (0, "/two"): 404, (1, "/one"): 404, (1, "/two"): 200}


def test_a_request_in_flight_is_answered_before_the_listeners_stop() -> None:
    is_asked = threading.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        is_asked.set()
        await stopping.wait()
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"done"})

    async def ask_and_stop() -> bytes:
        bound = bind(Listen("127.0.0.1", 0))
        listeners = Listeners([(slow, bound)])
        await listeners.start()
        with Wire(bound.getsockname()[1]) as wire:
            wire.say(get())
            await asyncio.to_thread(is_asked.wait)
            stop = asyncio.create_task(listeners.stop())
            asyncio.get_running_loop().call_later(0.3, stopping.set)
            body = (await asyncio.to_thread(wire.hear)).body
            await stop
            return body

    stopping = asyncio.Event()
    assert asyncio.run(ask_and_stop()) == b"done"


def test_an_idle_connection_does_not_delay_the_stop() -> None:
    with serving(_app()) as (port,):
        wire = Wire(port)
        assert wire.say(get()).hear().status == 200
    assert wire.hear_the_end() == b""
    wire.__exit__()


def test_a_new_connection_is_accepted_beside_many_busy_ones() -> None:
    """At one accept per event-loop iteration, ten thousand requests would be served first."""
    served = 0

    async def busy(_request: Request) -> Response:
        nonlocal served
        served += 1
        time.sleep(0.001)  # noqa: ASYNC251  (keeps the CPU busy)
        return Response(str(served))

    app = Starlette(routes=[Route("/", busy)])
    with serving(app) as (port,), ExitStack() as stack:
        for _ in range(150):
            # Each sends its next request as soon as it is answered.
            stack.enter_context(Wire(port)).say(*[get("/")] * 200)
        with Wire(port) as new:
            assert int(new.say(get("/")).hear().body) < 5000


def test_no_connection_is_accepted_after_the_stop() -> None:
    with serving(_app()) as (port,):
        pass
    with pytest.raises(ConnectionRefusedError):
        Wire(port)


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = load_settings(
            {
                "GOOGLE_CLIENT_ID": "id",
                "GOOGLE_CLIENT_SECRET": "secret",
                "GOOGLE_REDIRECT_URI": "https://broker.test/auth/google/callback",
                "GOOGLE_SCOPES": "openid",
                "DATABASE_URL": "postgresql://127.0.0.1/none",
                "SECRET_KEY": "k" * 32,
                "BROKER_CALLERS_FILE": "callers.yaml",
                "BROKER_PUBLIC_LISTEN": f"127.0.0.1:{port}",
            }
        )
        with pytest.raises(StartError, match=f"127.0.0.1:{port}: Address already in use"):
            await serve_until(asyncio.Event(), settings)


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        bind(Listen("192.0.2.1", 0))


def test_ipv6_is_served() -> None:
    try:
        bound = bind(Listen("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with bound:
        assert bound.family == socket.AF_INET6
