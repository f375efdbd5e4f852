"""Calls to Google on real sockets: bounds, labels of failures, shared connections."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError

from broker.google.errors import GoogleUnavailable
from broker.google.http import google_call, google_http_client, map_transport_error
from broker.google.oauth import GoogleOAuth
from broker.outbound.http_client import LONGEST_RESPONSE
from broker.secret import Secret
from broker.secret_sources.source import OAuthClient
from broker.telemetry.metrics import Metrics
from tests.google.scripted_google import DOCUMENT, ScriptedGoogle, body
from tests.support.clock import ManualClock

TOKENS = b'{"access_token": "ya29.planted", "token_type": "Bearer", "expires_in": 3599}'


def _subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _subclasses(sub)


HTTPX_ERRORS = sorted(
    {
        kind
        for root in (value for value in vars(httpx2).values() if isinstance(value, type))
        if issubclass(root, Exception) and not issubclass(root, Warning)
        for kind in _subclasses(root)
    },
    key=lambda kind: kind.__qualname__,
)


def _instance(kind: type[BaseException]) -> BaseException:
    error = kind.__new__(kind)
    error.args = ("ya29.planted",)
    return error


def test_the_walk_sees_every_exception_of_httpx() -> None:
    assert {httpx2.PoolTimeout, httpx2.InvalidURL, httpx2.StreamClosed} <= set(HTTPX_ERRORS)


@pytest.mark.parametrize("kind", HTTPX_ERRORS)
async def test_no_exception_of_httpx_is_left_unmapped(kind: type[BaseException]) -> None:
    metrics = Metrics()
    with pytest.raises(GoogleUnavailable) as caught:
        async with google_call("token", metrics):
            raise _instance(kind)
    assert "ya29" not in str(caught.value)


@pytest.mark.parametrize("kind", [TimeoutError, OAuthError])
async def test_other_third_party_exceptions_are_mapped_too(kind: type[Exception]) -> None:
    with pytest.raises(GoogleUnavailable):
        async with google_call("token", Metrics()):
            raise kind


async def test_a_defect_of_the_broker_is_not_mapped() -> None:
    with pytest.raises(ZeroDivisionError):
        async with google_call("token", Metrics()):
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx2.ConnectTimeout("x"), "timeout"),
        (httpx2.ReadTimeout("x"), "timeout"),
        (httpx2.PoolTimeout("x"), "busy"),
        (httpx2.ConnectError("x"), "connect"),
        (httpx2.ReadError("x"), "network"),
        (httpx2.RemoteProtocolError("x"), "protocol"),
        (httpx2.ProxyError("x"), "proxy"),
        (httpx2.InvalidURL("x"), "bad_endpoint"),
        (httpx2.DecodingError("x"), "bad_answer"),
    ],
)
def test_each_kind_of_failure_has_its_label(error: Exception, reason: str) -> None:
    assert map_transport_error(error).reason == reason


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _server(serve: Serve) -> AsyncIterator[str]:
    """Run a loopback server that hands each connection to `serve`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # The client hung up, as in many of these tests.
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0]) if lengths else 0)


def _response(content: bytes, headers: bytes = b"") -> bytes:
    length = str(len(content)).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + length
    return head + b"\r\n" + headers + b"\r\n" + content


@asynccontextmanager
async def _refresher(
    serve: Serve, deadline: timedelta = timedelta(seconds=5)
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Return a refresh against a server of the test's own, on the real pool."""
    google = ScriptedGoogle()
    async with _server(serve) as origin, google_http_client() as http:
        google.answers["/discovery"] = httpx2.Response(
            200, json=DOCUMENT | {"token_endpoint": f"{origin}/token"}
        )
        oauth = GoogleOAuth(google.discovery, http, ManualClock(), Metrics(), deadline=deadline)
        client = OAuthClient("id", Secret("secret"), 1)

        async def refresh() -> object:
            return await oauth.refresh(client=client, refresh_token=Secret("1//r"))

        yield refresh


async def _reason(refresh: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(GoogleUnavailable) as caught:
        await refresh()
    return caught.value.reason


async def test_calls_share_their_connection() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await _read_request(reader):
            writer.write(_response(TOKENS))

    async with _refresher(serve) as refresh:
        for _ in range(5):
            assert await refresh()
    assert connections == 1


async def test_a_trickling_response_ends_at_the_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        writer.write(_response(b" " * 10_000)[:-10_000])
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with _refresher(serve, timedelta(milliseconds=100)) as refresh:
        assert await _reason(refresh) == "timeout"


async def test_cancelled_calls_return_their_connections() -> None:
    hanging = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _read_request(reader):
            if hanging:
                await reader.read()
            writer.write(_response(TOKENS))

    async with _refresher(serve) as refresh:
        tasks = [asyncio.ensure_future(refresh()) for _ in range(150)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        hanging = False
        assert await refresh()


async def test_a_refused_connection_has_its_label() -> None:
    with socket.socket() as reserved:
        # No server listens there, and none can meanwhile.
        reserved.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        async with google_http_client() as http:
            with pytest.raises(GoogleUnavailable) as caught:
                async with google_call("token", Metrics()):
                    await http.get(origin)
    assert caught.value.reason == "connect"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        _response(TOKENS)[:-20],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TOKENS + b"\r\n",
        b"ya29.planted\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "a broken chunk", "no HTTP"],
)
async def test_an_incomplete_response_is_a_protocol_error_that_quotes_nothing(
    answer: bytes,
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        writer.write(answer)

    async with _refresher(serve) as refresh:
        with pytest.raises(GoogleUnavailable) as caught:
            await refresh()
    assert caught.value.reason == "protocol"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("declared", [True, False])
async def test_an_endless_response_is_not_read_to_its_end(declared: bool) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await _read_request(reader)
        length = b"Content-Length: 9999999999\r\n" if declared else b""
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()
            sent += 65_536

    async with _refresher(serve) as refresh:
        assert await _reason(refresh) == "too_long"
    # What the sockets buffer on the way is sent, but never read.
    assert sent < 64 * LONGEST_RESPONSE


async def test_a_compressed_response_is_neither_requested_nor_accepted() -> None:
    asked = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await _read_request(reader)
        writer.write(_response(gzip.compress(TOKENS), b"Content-Encoding: gzip\r\n"))

    async with _refresher(serve) as refresh:
        assert await _reason(refresh) == "bad_answer"
    assert b"accept-encoding: identity\r\n" in asked.lower()


async def test_no_cookie_travels_from_one_call_to_the_next() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await _read_request(reader):
            asked.append(request)
            writer.write(_response(TOKENS, b"Set-Cookie: who=ada; Path=/\r\n"))

    async with _server(serve) as origin, google_http_client() as http:
        await http.post(origin, data={"token": "1//r"})
        await http.post(origin, data={"token": "1//r"})
    assert len(asked) == 2
    assert not any(b"ada" in request for request in asked)


async def test_a_redirect_is_not_followed(google: ScriptedGoogle) -> None:
    google.answers["/token"] = httpx2.Response(307, headers={"Location": "https://evil.test/"})
    client = OAuthClient("id", Secret("secret"), 1)
    with pytest.raises(GoogleUnavailable) as caught:
        await google.oauth.refresh(client=client, refresh_token=Secret("1//r"))
    assert caught.value.reason == "bad_answer"
    assert {request.url.host for request in google.requests} == {"google.test"}


async def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await _read_request(reader)
        writer.write(_response(TOKENS))

    async with _server(serve) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        for name in ("http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with google_http_client() as http:
            await http.get("http://google.test/token")
    assert asked.startswith(b"GET http://google.test/token HTTP/1.1\r\n")


async def test_a_response_of_the_greatest_length_is_read(google: ScriptedGoogle) -> None:
    google.answers["/revoke"] = body(" " * LONGEST_RESPONSE)
    await google.oauth.revoke(Secret("1//r"))
