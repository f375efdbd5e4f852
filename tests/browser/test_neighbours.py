"""A neighbour of the broker under one domain, over https and in a real browser: it may set cookies
for both, and cannot make a victim complete an attacker's consent.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from broker.server.uvicorn_server import bind
from broker.settings import Listen
from devstack.google_standin import GoogleStandin
from tests.browser.support import serving_world
from tests.support.browser import continue_to_google, find_chromium
from tests.support.clock import ManualClock
from tests.support.issuer import self_signed
from tests.support.probes import exchanges
from tests.support.world import ADA, World

pytestmark = pytest.mark.browser

_DOMAIN = "example.test"
_ARGUMENTS = ["--no-sandbox", f"--host-resolver-rules=MAP *.{_DOMAIN} 127.0.0.1"]


@dataclass
class TlsProxy:
    """Terminates TLS for the broker and for its neighbour."""

    port: int = 0
    upstream: int = 0
    planted: bytes = b""
    """The neighbour's response sets this cookie for the whole domain."""

    def origin(self, name: str) -> str:
        return f"https://{name}.{_DOMAIN}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, for the host that its first request names."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if f"neighbour.{_DOMAIN}".encode() in head:
                cookie = self.planted + f"; Domain={_DOMAIN}; Path=/; Secure".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: %b\r\n" % cookie)
                writer.write(b"Content-Length: 0\r\n\r\n")
            else:
                broker, to_broker = await asyncio.open_connection("127.0.0.1", self.upstream)
                to_broker.write(head)
                await asyncio.gather(_pass_on(reader, to_broker), _pass_on(broker, writer))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def _tls_proxy(folder: Path) -> AsyncIterator[TlsProxy]:
    proxy = TlsProxy()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*self_signed(folder))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()


@pytest_asyncio.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[TlsProxy]:
    async with _tls_proxy(tmp_path) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def served(
    proxy: TlsProxy, tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """The whole broker, reached by https."""
    listening = bind(Listen("127.0.0.1", 0))
    proxy.upstream = listening.getsockname()[1]
    origin = proxy.origin("app")
    async with serving_world(
        tmp_path, database_url, standin, clock, listening=listening, origin=origin
    ) as world:
        yield world


@pytest_asyncio.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A tab of a browser that resolves both hosts and accepts any certificate."""
    own = await chromium.browser_type.launch(executable_path=find_chromium(), args=_ARGUMENTS)
    context = await own.new_context(ignore_https_errors=True)
    yield await context.new_page()
    await own.close()


async def _allow(page: Page) -> None:
    await page.get_by_role("button", name=ADA).click()
    await page.get_by_role("button", name="Allow").click()


async def test_a_user_connects_over_https(served: World, page: Page) -> None:
    await page.goto((await served.create_link("user-1")).json()["url"])
    await continue_to_google(page)
    await _allow(page)
    await expect(page.locator("main.good")).to_contain_text(ADA)
    assert len(await served.grants()) == 1


@pytest.mark.parametrize("before", [b"", b"\x85", b"\xa0"])
async def test_check_02_a_neighbours_cookie_does_not_make_a_victim_complete_an_attackers_request(
    served: World, proxy: TlsProxy, page: Page, before: bytes
) -> None:
    async with served.browser(proxy.origin("app")) as attacker:
        to_google = await served.start_consent(attacker, "attacker")
        (cookie,) = attacker.cookies.jar
        proxy.planted = before + f"{cookie.name}={cookie.value}".encode()
    assert cookie.name.startswith("__Host-")
    await page.goto(proxy.origin("neighbour"))
    await page.goto(to_google)
    await _allow(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "We can't tell which connection this belongs to"
    )
    assert exchanges(served) == 0
