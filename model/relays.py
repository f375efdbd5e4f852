"""Black-holing relays for code without an event loop: they run in a thread of their own."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from tests.support.lossy_link import LossyLink

_Result = TypeVar("_Result")


class _Link(LossyLink):
    """The same, and a server that is down refuses connections instead of taking them."""

    async def _connected(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            await super()._connected(from_client, to_client)
        except OSError:
            to_client.transport.abort()


class Relay:
    """One way to one server. Whoever uses it is told of nothing while it is cut."""

    def __init__(self, link: LossyLink, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self.is_cut = False

    @property
    def port(self) -> int:
        return self._link.port

    def cut(self) -> None:
        self.is_cut = True
        self._loop.call_soon_threadsafe(self._link.stop_carrying)

    def heal(self, *, anew: bool = False) -> None:
        """Carry on: with what was sent meanwhile, or `anew`, as if the server had forgotten all."""
        self.is_cut = False
        carry = self._link.carry_on_anew if anew else self._link.carry_on
        self._loop.call_soon_threadsafe(carry)


class Relays:
    """All relays of a run, until `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._open = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()

    def open(self, server_port: int) -> Relay:
        """A relay to a port of this machine; nobody need listen there yet."""
        link = _Link(server_port)
        self._run(self._open.enter_async_context(link.listening()))
        return Relay(link, self._loop)

    def close(self) -> None:
        self._run(self._open.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
