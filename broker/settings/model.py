"""The settings as the rest of the product sees them: checked, and never changed."""

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from broker.secret import Secret
from broker.settings.secret_setting import SecretSetting, read_secret_file
from broker.settings.webhook_receiver import WebhookReceiver

GOOGLE_DISCOVERY_URL = "https://accounts.google.com/.well-known/openid-configuration"
IDENTITY_SCOPES = ("openid", "email")
"""Always asked for: without them Google sends no ID token, and the account stays unknown."""
PROJECTED_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where pods have their service account's token."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where one listener binds."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """`BROKER_SECRET_SOURCE=env`: the OAuth client from two settings."""

    client_id: SecretSetting
    client_secret: SecretSetting
    name: Literal["env"] = "env"


@dataclass(frozen=True, slots=True)
class FileSource:
    """`BROKER_SECRET_SOURCE=file`: the `credentials.json` that Google's console downloads."""

    path: Path
    name: Literal["file"] = "file"


@dataclass(frozen=True, slots=True)
class VaultTokenLogin:
    """`VAULT_AUTH=token`."""

    token: SecretSetting


@dataclass(frozen=True, slots=True)
class VaultAppRoleLogin:
    """`VAULT_AUTH=approle`."""

    role_id: SecretSetting
    secret_id: SecretSetting


@dataclass(frozen=True, slots=True)
class VaultJwtLogin:
    """`VAULT_AUTH=kubernetes` or `jwt`: by the token that Kubernetes projects into the pod."""

    method: Literal["kubernetes", "jwt"]
    """Where it is mounted, too."""
    role: str
    token_file: Path = PROJECTED_TOKEN
    """Read at each login, for the kubelet replaces it."""

    def read_token(self) -> Secret:
        """The token now. Raises `UnreadableSecretError`."""
        complaint = f"VAULT_AUTH={self.method}: can't read {self.token_file}"
        return read_secret_file(self.token_file, complaint)


VaultLogin = VaultTokenLogin | VaultAppRoleLogin | VaultJwtLogin


@dataclass(frozen=True, slots=True)
class VaultSource:
    """`BROKER_SECRET_SOURCE=vault`: KV v2 of HashiCorp Vault or OpenBao."""

    addresses: tuple[str, ...]
    """Tried in order; each has a login of its own."""
    namespace: str | None
    login: VaultLogin
    kv_mount: str
    kv_path: str
    name: Literal["vault"] = "vault"


SecretSource = EnvironmentSource | FileSource | VaultSource


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `broker serve` is told, checked."""

    public_listen: Listen
    internal_listen: Listen
    ops_listen: Listen
    redirect_uris: tuple[str, ...]
    """Each registered at Google; the first is the default."""
    scopes: tuple[str, ...]
    """All that any link may ask for, `openid email` included."""
    discovery_url: str
    database_url: Secret
    database_replica_url: Secret | None
    """A streaming replica, read while the primary is away."""
    secret_keys: tuple[Secret, ...]
    """The first signs and seals; all verify and open."""
    secret_source: SecretSource
    access_tokens: Literal["sealed", "memory"]
    stale_tokens_at_most: timedelta | None
    """How long cached tokens are served without news of revocations; None is until they expire."""
    audit_retention: timedelta | None
    """How long audit records are kept; None is for ever."""
    callers_file: Path
    webhooks: WebhookReceiver | None
    log_level: str
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Whose word on where a request comes from counts."""
    warnings: tuple[str, ...] = ()
    """A line for each variable that looks like a setting and is none."""
    unverified_databases: tuple[str, ...] = ()
    """Which settings lead to a PostgreSQL that is not on this machine, without verified TLS."""
