"""The OAuth client from a KV v2 secret of HashiCorp Vault or OpenBao; the broker never writes it.

Each address may be a separate cluster: the broker logs in to each, and sends no token of one to
another. Every refusal becomes a line that says what an operator can do about it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from broker.clock import Clock
from broker.secret import Secret
from broker.secret_sources.source import (
    OAuthClient,
    SourceMisconfigured,
    SourceUnavailable,
    client_from_fields,
)
from broker.secret_sources.vault_api import (
    ANSWER_LIMIT,
    CONNECT_LIMIT,
    KvSecret,
    VaultApi,
    VaultRefusal,
)
from broker.secret_sources.vault_token import TokenKeeper
from broker.settings import VaultSource, VaultTokenLogin

_FIELDS = "client_id=<id> client_secret=<secret>"

_Answer = TypeVar("_Answer")


class VaultClientSource:
    """A `ClientSource` that tries the addresses in order until one gives a definite answer."""

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
            _VaultServer(
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
        return await self._first(_VaultServer.read)

    async def ping(self) -> None:
        await self._first(_VaultServer.ping)

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

    async def _first(self, ask: Callable[["_VaultServer"], Awaitable[_Answer]]) -> _Answer:
        reasons = []
        for server in self._servers:
            try:
                return await ask(server)
            except SourceUnavailable as error:
                reasons.append(str(error))
        raise SourceUnavailable(f"no Vault answers: {'; '.join(reasons)}")


class _VaultServer:
    """Reads the newest version of the secret at one address; replaces a refused token once.

    Its methods raise `SourceUnavailable` and `SourceMisconfigured`.
    """

    def __init__(self, api: VaultApi, config: VaultSource, clock: Clock) -> None:
        self._config = config
        self._api = api
        self._keeper = TokenKeeper(api, config.login, clock)
        self._place = f"{config.kv_mount}/{config.kv_path}"
        self._cli_place = f"-mount={config.kv_mount} {config.kv_path}"

    async def read(self) -> OAuthClient:
        secret = await self._read_newest()
        return client_from_fields(
            secret.fields,
            version=secret.version,
            place=f"Vault at {self._api.name}: {self._place} (version {secret.version})",
            remedy=f"`vault kv put {self._cli_place} {_FIELDS}`",
        )

    async def ping(self) -> None:
        await self._api.ping()

    async def maintain(self) -> None:
        await self._keeper.maintain()

    def close(self) -> None:
        self._api.close()

    async def _read_newest(self) -> KvSecret:
        token = await self._keeper.token()
        answer = await self._read_with(token)
        if answer is VaultRefusal.DENIED:
            replacement = await self._keeper.replace(token)
            if replacement is not None:
                token = replacement
                answer = await self._read_with(token)
        if isinstance(answer, VaultRefusal):
            remedy = await self._remedy(answer, token)
            raise SourceMisconfigured(f"Vault at {self._api.name} {remedy}")
        return answer

    async def _read_with(self, token: Secret) -> KvSecret | VaultRefusal:
        mount, path = self._config.kv_mount, self._config.kv_path
        return await self._api.read_kv(token, mount=mount, path=path)

    async def _remedy(self, refusal: VaultRefusal, token: Secret) -> str:
        """Return the end of a sentence about the refusal, with what to do."""
        mount, path = self._config.kv_mount, self._config.kv_path
        match refusal:
            case VaultRefusal.DENIED if await self._is_unknown(token):
                return (
                    "refuses the token (expired, revoked, or another cluster's or "
                    "namespace's): put a new one in VAULT_TOKEN or its file"
                )
            case VaultRefusal.DENIED:
                return (
                    f"doesn't let the broker read {self._place}: give it the policy "
                    f'`path "{mount}/data/{path}" {{ capabilities = ["read"] }}`, '
                    "or correct VAULT_KV_MOUNT and VAULT_KV_PATH"
                )
            case VaultRefusal.NOTHING_THERE:
                return (
                    f"has nothing at {self._place}: `vault kv put {self._cli_place} "
                    f"{_FIELDS}`, or correct VAULT_KV_PATH ({self._path_hint})"
                )
            case VaultRefusal.VERSION_DELETED:
                return (
                    f"has a newest version of {self._place} that is deleted: `vault kv undelete "
                    f"-versions=<n> {self._cli_place}`, or `vault kv put` a new one"
                )
            case VaultRefusal.NO_SUCH_MOUNT:
                return (
                    f"has no secrets engine at {mount}/: `vault secrets enable "
                    f"-path={mount} kv-v2`, or correct VAULT_KV_MOUNT"
                )
            case VaultRefusal.NO_SUCH_NAMESPACE:
                return "doesn't know the namespace: correct VAULT_NAMESPACE"
        return f"rejects the request for {self._place}: correct VAULT_KV_MOUNT and VAULT_KV_PATH"

    async def _is_unknown(self, token: Secret) -> bool:
        """True if Vault does not know an operator's token; False if the token lacks a policy."""
        if not isinstance(self._config.login, VaultTokenLogin):
            return False
        return isinstance(await self._api.look_up(token), VaultRefusal)

    @property
    def _path_hint(self) -> str:
        first, _, _ = self._config.kv_path.strip("/").partition("/")
        if first in ("data", self._config.kv_mount):
            return f"it is written without the mount and without `data/`, so not with `{first}/`"
        return f"the mount {self._config.kv_mount}/ must be KV version 2"
