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
        self._lets_in = asyncio.Event()
        self._lets_in.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._carriers: set[asyncio.Task[None]] = set()
        self._fatal: list[bytes] = []
        self._last_words: list[bytes] = []
        self.port = 0
        self.connections = 0
        """How many clients have connected so far."""

    def stop_carrying(self) -> None:
        self._carries.clear()

    def stop_letting_in(self) -> None:
        """Only who is connected already is served."""
        self._lets_in.clear()

    def carry_on(self) -> None:
        """What was sent meanwhile arrives late."""
        self._carries.set()

    def carry_on_anew(self) -> None:
        """Only for those who connect now: the server has forgotten all others."""
        for end in self._ends:
            end.transport.abort()
        self._carries.set()

    def lose_answer_to(self, *said: bytes) -> None:
        """The next connection on which a client says all of this, in turn, is lost with the last:
        the server hears it, and the client never learns what came of it.
        """
        self._fatal = list(said)

    def stop_carrying_after(self, *said: bytes) -> None:
        """Stop as soon as one client has said all of this, in turn: the server hears the last of
        it, and nothing else of anybody's.
        """
        self._last_words = list(said)

    @property
    def has_stopped(self) -> bool:
        """Whether nothing is carried."""
        return not self._carries.is_set()

    @property
    def has_lost_answer(self) -> bool:
        """Whether that has happened, or was not asked for."""
        return not self._fatal

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            listener.close()
            self._lets_in.set()
            for carrier in self._carriers:
                carrier.cancel()
            await asyncio.gather(*self._carriers, return_exceptions=True)
            for end in self._ends:
                end.transport.abort()

    async def _connected(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        await self._lets_in.wait()
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._ends |= {to_client, to_server}
        for source, target, back in (
            (from_client, to_server, to_client),
            (from_server, to_client, None),
        ):
            carrier = asyncio.create_task(self._carry(source, target, back))
            self._carriers.add(carrier)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        back: asyncio.StreamWriter | None,
    ) -> None:
        """`back` leads to whoever speaks, if that is a client."""
        heard = 0
        last_heard = 0
        try:
            while data := await source.read(65536):
                await self._carries.wait()
                words = self._last_words
                while back and last_heard < len(words) and words[last_heard] in data:
                    last_heard += 1
                if back and words and last_heard == len(words):
                    self._last_words = []
                    self.stop_carrying()
                while back and heard < len(self._fatal) and self._fatal[heard] in data:
                    heard += 1
                if back and self._fatal and heard == len(self._fatal):
                    self._fatal = []
                    back.transport.abort()
                    target.write(data)
                    break
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
