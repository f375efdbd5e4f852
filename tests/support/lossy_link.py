"""A TCP proxy that can stop forwarding bytes, so that its clients get no response and no error."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class LossyLink:
    """A TCP proxy to a server on this machine. It resets connections while the server is down."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._accepts = asyncio.Event()
        self._accepts.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._copying: set[asyncio.Task[None]] = set()
        self._drop_after: list[bytes] = []
        self._cut_after: list[bytes] = []
        self.port = 0
        self.connections = 0
        """The number of clients that have connected so far."""

    def cut(self) -> None:
        """Stop forwarding, also for connections that are opened later."""
        self._is_open.clear()

    def hold_new_connections(self) -> None:
        """Forward nothing for connections that are opened from now on."""
        self._accepts.clear()

    def heal(self) -> None:
        """Forward again, beginning with the bytes that were sent meanwhile."""
        self._is_open.set()

    def heal_with_reset(self) -> None:
        """Reset all connections, and forward for new ones, as after a restart of the server."""
        for writer in self._writers:
            writer.transport.abort()
        self._is_open.set()

    def drop_response_to(self, *messages: bytes) -> None:
        """Reset the next connection on which a client sends these messages in order.

        The server receives the last message; the client does not receive the response.
        """
        self._drop_after = list(messages)

    def cut_after(self, *messages: bytes) -> None:
        """Cut the link once a client has sent these messages in order.

        The server receives the last message, and nothing after it from any client.
        """
        self._cut_after = list(messages)

    @property
    def is_cut(self) -> bool:
        """Whether nothing is forwarded."""
        return not self._is_open.is_set()

    @property
    def has_dropped_response(self) -> bool:
        """Whether the response was dropped, or none was to be."""
        return not self._drop_after

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            listener.close()
            self._accepts.set()
            for task in self._copying:
                task.cancel()
            await asyncio.gather(*self._copying, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        await self._accepts.wait()
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            to_client.transport.abort()
            return
        self._writers |= {to_client, to_server}
        for source, target, back in (
            (from_client, to_server, to_client),
            (from_server, to_client, None),
        ):
            task = asyncio.create_task(self._copy(source, target, back))
            self._copying.add(task)

    async def _copy(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        back: asyncio.StreamWriter | None,
    ) -> None:
        """Forward one direction; `back` is the way to the client if the source is a client."""
        sent_of_cut = sent_of_drop = 0
        try:
            while data := await source.read(65536):
                await self._is_open.wait()
                target.write(data)
                if back is None:
                    continue
                sent_of_cut = _count_sent(self._cut_after, data, sent_of_cut)
                if self._cut_after and sent_of_cut == len(self._cut_after):
                    self._cut_after = []
                    self.cut()
                sent_of_drop = _count_sent(self._drop_after, data, sent_of_drop)
                if self._drop_after and sent_of_drop == len(self._drop_after):
                    self._drop_after = []
                    back.transport.abort()
                    break
            await self._is_open.wait()
        finally:
            target.close()


def _count_sent(messages: Sequence[bytes], data: bytes, count: int) -> int:
    """Return how many of the messages a client has sent in order, of which `count` before."""
    while count < len(messages) and messages[count] in data:
        count += 1
    return count


@asynccontextmanager
async def lossy_link(url: str) -> AsyncIterator[tuple[LossyLink, str]]:
    """Open a link to a server on this machine; yield it with the URL that goes through it."""
    port = urlsplit(url).port
    assert port is not None
    link = LossyLink(port)
    async with link.listening():
        yield link, url.replace(f":{port}/", f":{link.port}/")
