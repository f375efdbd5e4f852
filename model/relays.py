"""Black-holing relays for code without an event loop; they run in their own thread."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from tests.support.lossy_link import LossyLink

_Result = TypeVar("_Result")


class Relay:
    """One route to one server. While it is cut, its clients get no error."""

    def __init__(self, link: LossyLink, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self.is_cut = False

    @property
    def port(self) -> int:
        return self._link.port

    def cut(self) -> None:
        self.is_cut = True
        self._loop.call_soon_threadsafe(self._link.cut)

    def heal(self, *, anew: bool = False) -> None:
        """Restore it with the bytes sent meanwhile, or (`anew`) as after the server's restart."""
        self.is_cut = False
        carry = self._link.heal_with_reset if anew else self._link.heal
        self._loop.call_soon_threadsafe(carry)


class Relays:
    """All relays of a run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._open = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._thread.start()

    def open(self, server_port: int) -> Relay:
        """Create a relay to a local port, which need not be open yet."""
        link = LossyLink(server_port)
        self._run(self._open.enter_async_context(link.listening()))
        return Relay(link, self._loop)

    def close(self) -> None:
        self._run(self._open.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
