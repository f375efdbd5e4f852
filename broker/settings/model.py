"""The settings as the rest of the product sees them: validated and immutable."""

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from broker.secret import Secret
from broker.settings.configured_secret import ConfiguredSecret, read_secret_file

GOOGLE_DISCOVERY_URL = "https://accounts.google.com/.well-known/openid-configuration"
ALWAYS_REQUESTED = ("openid", "email")
"""The scopes in every authorization request: without them Google sends no ID token, and the account
stays unknown."""
PROJECTED_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where a pod finds its service account's token."""


@dataclass(frozen=True, slots=True)
class Listen:
    """The address that one listener binds."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """`BROKER_SECRET_SOURCE=env`: the OAuth client from two settings."""

    client_id: ConfiguredSecret
    client_secret: ConfiguredSecret
    name: Literal["env"] = "env"


@dataclass(frozen=True, slots=True)
class FileSource:
    """`BROKER_SECRET_SOURCE=file`: the `credentials.json` that Google's console downloads."""

    path: Path
    name: Literal["file"] = "file"


@dataclass(frozen=True, slots=True)
class VaultTokenLogin:
    """`VAULT_AUTH=token`."""

    token: ConfiguredSecret


@dataclass(frozen=True, slots=True)
class VaultAppRoleLogin:
    """`VAULT_AUTH=approle`."""

    role_id: ConfiguredSecret
    secret_id: ConfiguredSecret


@dataclass(frozen=True, slots=True)
class VaultJwtLogin:
    """`VAULT_AUTH=kubernetes` or `jwt`: the token that Kubernetes projects into the pod."""

    method: Literal["kubernetes", "jwt"]
    """The auth method, and the path where it is mounted."""
    role: str
    token_file: Path = PROJECTED_TOKEN
    """Read at each login, because the kubelet replaces it."""

    def read_token(self) -> Secret:
        """Return the current token. Raises `UnreadableSecretError`."""
        complaint = f"VAULT_AUTH={self.method}: can't read {self.token_file}"
        return read_secret_file(self.token_file, complaint)


VaultLogin = VaultTokenLogin | VaultAppRoleLogin | VaultJwtLogin


@dataclass(frozen=True, slots=True)
class VaultSource:
    """`BROKER_SECRET_SOURCE=vault`: KV v2 of HashiCorp Vault or OpenBao."""

    addresses: tuple[str, ...]
    """Tried in order; the broker logs in to each separately."""
    namespace: str | None
    login: VaultLogin
    kv_mount: str
    kv_path: str
    name: Literal["vault"] = "vault"


SecretSource = EnvironmentSource | FileSource | VaultSource


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """The receiver of the product's webhooks, and the keys that sign them."""

    url: str
    secrets: tuple[Secret, ...]
    """`whsec_…` each (Standard Webhooks 1.0.0). All of them sign: several during a rotation."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The validated configuration of `broker serve`."""

    public_listen: Listen
    internal_listen: Listen
    ops_listen: Listen
    redirect_uris: tuple[str, ...]
    """Each is registered at Google; the first is the default."""
    scopes: tuple[str, ...]
    """All scopes that a link may request, `openid email` included."""
    discovery_url: str
    database_url: Secret
    database_replica_url: Secret | None
    """A streaming replica, read while the primary is unavailable."""
    secret_keys: tuple[Secret, ...]
    """The first signs and seals; all verify and open."""
    secret_source: SecretSource
    access_tokens: Literal["sealed", "memory"]
    stale_tokens_at_most: timedelta | None
    """How long cached tokens are served without a database connection; None: until they expire."""
    audit_retention: timedelta | None
    """How long audit records are kept; None: for ever."""
    callers_file: Path
    webhooks: WebhookReceiver | None
    log_level: str
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """The proxies whose `X-Forwarded-For` and `Forwarded` headers are believed."""
    warnings: tuple[str, ...] = ()
    """A line for each variable that looks like a setting and is none."""
    unverified_databases: tuple[str, ...] = ()
    """The settings whose PostgreSQL is on another machine, without verified TLS."""
