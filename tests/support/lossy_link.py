"""A way to a server that can stop to carry anything: who is connected, and who connects, waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class LossyLink:
    """A TCP proxy. Neither end is told when it stops carrying."""

    def __init__(self, port: int) -> None:
        """`port` is the server's, on this machine."""
        self._server_port = port
        self._carries = asyncio.Event()
        self._carries.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self.port = 0

    def stop_carrying(self) -> None:
        self._carries.clear()

    def carry_on(self) -> None:
        """What was sent meanwhile arrives late."""
        self._carries.set()

    def carry_on_anew(self) -> None:
        """Only for those who connect now: the server has forgotten all others."""
        for end in self._ends:
            end.transport.abort()
        self._carries.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            listener.close()
            for carrier in self._carriers:
                carrier.cancel()
            await asyncio.gather(*self._carriers, return_exceptions=True)
            for end in self._ends:
                end.transport.abort()

    async def _connected(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._ends |= {to_client, to_server}
        for source, target in ((from_client, to_server), (from_server, to_client)):
            carrier = asyncio.create_task(self._carry(source, target))
            self._carriers.add(carrier)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._carries.wait()
                target.write(data)
            await self._carries.wait()
        finally:
            target.close()


@asynccontextmanager
async def lossy_link(url: str) -> AsyncIterator[tuple[LossyLink, str]]:
    """A link to a server on this machine, and the address that leads there over it."""
    port = urlsplit(url).port
    assert port is not None
    link = LossyLink(port)
    async with link.listening():
        yield link, url.replace(f":{port}/", f":{link.port}/")
