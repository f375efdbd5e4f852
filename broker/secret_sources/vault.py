"""The OAuth client from a KV v2 secret of HashiCorp Vault or OpenBao, which is only ever read.

Every refusal is turned into a line that says what an operator can do about it.
"""

from datetime import timedelta

from broker.clock import Clock
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.source import SourceMisconfigured, checked_client
from broker.secret_sources.vault_answers import KvSecret, Refusal
from broker.secret_sources.vault_api import ANSWER_LIMIT, CONNECT_LIMIT, VaultApi, VaultRefused
from broker.secret_sources.vault_token import TokenKeeper
from broker.settings import VaultSource

_FIELDS = "client_id=<id> client_secret=<secret>"


class VaultClientSource:
    """Reads the newest version of one secret; a refused token is replaced once."""

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
        self._config = config
        self._api = VaultApi(
            config.addresses,
            config.namespace,
            connect_limit=connect_limit,
            answer_limit=answer_limit,
        )
        self._keeper = TokenKeeper(self._api, config.login, clock)

    async def read(self) -> OAuthClient:
        secret = await self._newest()
        return checked_client(
            secret.fields,
            version=secret.version,
            place=f"Vault's {self._place} (version {secret.version})",
            remedy=f"`vault kv put {self._place_options} {_FIELDS}`",
        )

    async def ping(self) -> None:
        await self._api.ping()

    async def maintain(self) -> None:
        await self._keeper.maintain()

    async def aclose(self) -> None:
        self._api.close()

    async def _newest(self) -> KvSecret:
        token = await self._keeper.token()
        answer = await self._ask(token)
        if answer is Refusal.DENIED:
            replacement = await self._keeper.replace(token)
            if replacement is not None:
                token = replacement
                answer = await self._ask(token)
        if isinstance(answer, Refusal):
            raise SourceMisconfigured(await self._remedy(answer, token))
        return answer

    async def _ask(self, token: Secret) -> KvSecret | Refusal:
        try:
            return await self._api.read_kv(
                token, mount=self._config.kv_mount, path=self._config.kv_path
            )
        except VaultRefused as error:
            return error.refusal

    @property
    def _place(self) -> str:
        return f"{self._config.kv_mount}/{self._config.kv_path}"

    @property
    def _place_options(self) -> str:
        return f"-mount={self._config.kv_mount} {self._config.kv_path}"

    async def _remedy(self, refusal: Refusal, token: Secret) -> str:
        mount, path = self._config.kv_mount, self._config.kv_path
        match refusal:
            case Refusal.DENIED if not (
                self._keeper.can_log_in or await self._keeper.is_known(token)
            ):
                return (
                    "Vault refuses the token (expired, revoked, or another cluster's or "
                    "namespace's): put a new one in VAULT_TOKEN or its file"
                )
            case Refusal.DENIED:
                return (
                    f"Vault doesn't let the broker read {self._place}: give it the policy "
                    f'`path "{mount}/data/{path}" {{ capabilities = ["read"] }}`, '
                    "or correct VAULT_KV_MOUNT and VAULT_KV_PATH"
                )
            case Refusal.NOTHING_THERE:
                return (
                    f"Vault has nothing at {self._place}: `vault kv put {self._place_options} "
                    f"{_FIELDS}`, or correct VAULT_KV_PATH ({self._path_advice})"
                )
            case Refusal.VERSION_DELETED:
                return (
                    f"the newest version of {self._place} in Vault is deleted: `vault kv undelete "
                    f"-versions=<n> {self._place_options}`, or `vault kv put` a new one"
                )
            case Refusal.NO_SUCH_MOUNT:
                return (
                    f"Vault has no secrets engine at {mount}/: `vault secrets enable "
                    f"-path={mount} kv-v2`, or correct VAULT_KV_MOUNT"
                )
            case Refusal.NO_SUCH_NAMESPACE:
                return "Vault doesn't know the namespace: correct VAULT_NAMESPACE"
        return f"Vault can't make sense of {self._place}: correct VAULT_KV_MOUNT and VAULT_KV_PATH"

    @property
    def _path_advice(self) -> str:
        first, _, _ = self._config.kv_path.strip("/").partition("/")
        if first in ("data", self._config.kv_mount):
            return f"it is written without the mount and without `data/`, so not with `{first}/`"
        return f"the mount {self._config.kv_mount}/ must be KV version 2"
