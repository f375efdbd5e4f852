"""The sockets behind the requests, so that a fault can close one without an answer."""

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OpenConnections:
    """Transports by the peer's address, which is how a request names its connection."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}

    def close(self, scope: Scope) -> None:
        """Close the request's connection after what was written so far."""
        transport = self._transports.get(tuple(scope["client"]))
        if transport is not None:
            transport.close()

    def close_all(self) -> None:
        for transport in list(self._transports.values()):
            transport.close()

    def protocol(self) -> type[asyncio.Protocol]:
        """An HTTP protocol for uvicorn that reports its connections here."""
        transports = self._transports

        class ReportingProtocol(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client is not None:
                    transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client is not None:
                    transports.pop(self.client, None)
                super().connection_lost(exc)

        return ReportingProtocol
