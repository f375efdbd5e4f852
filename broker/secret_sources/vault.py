"""The OAuth client from a KV v2 secret of HashiCorp Vault or OpenBao, which is only ever read.

Each address may be a cluster of its own: it gets its own login, and no other's token.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from broker.clock import Clock
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.source import SourceUnavailable
from broker.secret_sources.vault_api import ANSWER_LIMIT, CONNECT_LIMIT, VaultApi
from broker.secret_sources.vault_server import VaultServer
from broker.settings import VaultSource

_Answer = TypeVar("_Answer")


class VaultClientSource:
    """Asks the addresses in order until one gives a definite answer."""

    name = "vault"

    def __init__(
        self,
        config: VaultSource,
        clock: Clock,
        *,
        connect_limit: timedelta = CONNECT_LIMIT,
        answer_limit: timedelta = ANSWER_LIMIT,
    ) -> None:
        """The limits are for each address."""
        self._servers = [
            VaultServer(
                VaultApi(
                    address,
                    config.namespace,
                    connect_limit=connect_limit,
                    answer_limit=answer_limit,
                ),
                config,
                clock,
            )
            for address in config.addresses
        ]

    async def read(self) -> OAuthClient:
        return await self._first(VaultServer.read)

    async def ping(self) -> None:
        await self._first(VaultServer.ping)

    async def maintain(self) -> None:
        outcomes = await asyncio.gather(
            *(server.maintain() for server in self._servers), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def aclose(self) -> None:
        for server in self._servers:
            server.close()

    async def _first(self, ask: Callable[[VaultServer], Awaitable[_Answer]]) -> _Answer:
        reasons = []
        for server in self._servers:
            try:
                return await ask(server)
            except SourceUnavailable as error:
                reasons.append(str(error))
        raise SourceUnavailable(f"no Vault answers: {'; '.join(reasons)}")
