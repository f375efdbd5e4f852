"""What the sources on this machine share: read anew each time, in a thread, and nothing is held."""

import asyncio
from abc import ABC, abstractmethod

from broker.secret_sources.client import OAuthClient


class ChangeCounter:
    """Numbers the states of a client whose source keeps no versions: 1, 2, …"""

    def __init__(self) -> None:
        self._last: OAuthClient | None = None

    @property
    def next_version(self) -> int:
        return self._last.version + 1 if self._last else 1

    def numbered(self, client: OAuthClient) -> OAuthClient:
        """`client`, read as `next_version`; or the last one, if nothing has changed since."""
        if self._last is None or not client.has_credentials_of(self._last):
            self._last = client
        return self._last


class LocalSource(ABC):
    """All of a `ClientSource` but its name, and how it is read."""

    def __init__(self) -> None:
        self._changes = ChangeCounter()

    async def read(self) -> OAuthClient:
        return await asyncio.to_thread(self._read)

    async def ping(self) -> None:
        await self.read()

    async def maintain(self) -> None:  # noqa: B027  (empty, not abstract)
        """Nothing here needs upkeep."""

    async def aclose(self) -> None:  # noqa: B027
        """Nothing is held open."""

    @abstractmethod
    def _read(self) -> OAuthClient:
        """The client as it is now, numbered; may block. Raises `SourceMisconfigured`."""
