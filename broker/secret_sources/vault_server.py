"""The OAuth client from one address of Vault.

Every refusal is turned into a line that says what an operator can do about it.
"""

from broker.clock import Clock
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.source import SourceMisconfigured, checked_client
from broker.secret_sources.vault_answers import KvSecret, Refusal
from broker.secret_sources.vault_api import VaultApi, VaultRefused
from broker.secret_sources.vault_token import TokenKeeper
from broker.settings import VaultSource, VaultTokenLogin

_FIELDS = "client_id=<id> client_secret=<secret>"


class VaultServer:
    """Reads the newest version of one secret; a refused token is replaced once.

    Its methods raise `SourceUnavailable` and `SourceMisconfigured`.
    """

    def __init__(self, api: VaultApi, config: VaultSource, clock: Clock) -> None:
        self._config = config
        self._api = api
        self._keeper = TokenKeeper(api, config.login, clock)

    async def read(self) -> OAuthClient:
        """The client as it is there now."""
        secret = await self._newest()
        return checked_client(
            secret.fields,
            version=secret.version,
            place=f"Vault at {self._api.name}: {self._place} (version {secret.version})",
            remedy=f"`vault kv put {self._place_options} {_FIELDS}`",
        )

    async def ping(self) -> None:
        """Return if it is up and unsealed."""
        await self._api.ping()

    async def maintain(self) -> None:
        """Renew or replace the token if it is time."""
        await self._keeper.maintain()

    def close(self) -> None:
        """Ask nothing more."""
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
            raise SourceMisconfigured(
                f"Vault at {self._api.name} {await self._remedy(answer, token)}"
            )
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
        """What it does, and what to do about it."""
        mount, path = self._config.kv_mount, self._config.kv_path
        match refusal:
            case Refusal.DENIED if await self._is_bad(token):
                return (
                    "refuses the token (expired, revoked, or another cluster's or "
                    "namespace's): put a new one in VAULT_TOKEN or its file"
                )
            case Refusal.DENIED:
                return (
                    f"doesn't let the broker read {self._place}: give it the policy "
                    f'`path "{mount}/data/{path}" {{ capabilities = ["read"] }}`, '
                    "or correct VAULT_KV_MOUNT and VAULT_KV_PATH"
                )
            case Refusal.NOTHING_THERE:
                return (
                    f"has nothing at {self._place}: `vault kv put {self._place_options} "
                    f"{_FIELDS}`, or correct VAULT_KV_PATH ({self._path_advice})"
                )
            case Refusal.VERSION_DELETED:
                return (
                    f"has a newest version of {self._place} that is deleted: `vault kv undelete "
                    f"-versions=<n> {self._place_options}`, or `vault kv put` a new one"
                )
            case Refusal.NO_SUCH_MOUNT:
                return (
                    f"has no secrets engine at {mount}/: `vault secrets enable "
                    f"-path={mount} kv-v2`, or correct VAULT_KV_MOUNT"
                )
            case Refusal.NO_SUCH_NAMESPACE:
                return "doesn't know the namespace: correct VAULT_NAMESPACE"
        return f"can't make sense of {self._place}: correct VAULT_KV_MOUNT and VAULT_KV_PATH"

    async def _is_bad(self, token: Secret) -> bool:
        """Whether an operator's token is unknown, and not one that may too little."""
        if not isinstance(self._config.login, VaultTokenLogin):
            return False
        try:
            await self._api.look_up(token)
        except VaultRefused:
            return True
        return False

    @property
    def _path_advice(self) -> str:
        first, _, _ = self._config.kv_path.strip("/").partition("/")
        if first in ("data", self._config.kv_mount):
            return f"it is written without the mount and without `data/`, so not with `{first}/`"
        return f"the mount {self._config.kv_mount}/ must be KV version 2"
