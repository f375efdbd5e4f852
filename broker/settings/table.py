"""The table of settings: each is declared once, with its name, parser, default and documentation.

The loader, `broker doctor` and the reference (`checks/reference/settings.py`) read it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from broker.secret import Secret
from broker.settings import parsers
from broker.settings.model import GOOGLE_DISCOVERY_URL, PROJECTED_TOKEN, Listen
from broker.settings.parsers import one_of

_T = TypeVar("_T")


class Section(StrEnum):
    """A section of the reference."""

    GOOGLE = "Google"
    OAUTH_CLIENT = "The OAuth client"
    STORAGE = "Storage"
    WEBHOOKS = "Webhooks"
    PROCESS = "The process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[_T]):
    """One environment variable."""

    name: str
    section: Section
    parse: Callable[[str], _T]
    """Raises `MalformedError`; accepts `default`."""
    default: str = ""
    """Used if the variable is not set."""
    required: str = ""
    """A few words for the complaint that it is missing; empty if the variable is optional."""
    if_unset: str = ""
    """For the reference: what happens without it, where `default` and `required` do not say it."""
    meaning: str
    """For the reference, in Markdown."""
    example: str = ""
    is_secret: bool = False
    """Its value may be in the file that `<name>_FILE` names instead."""


PUBLIC_LISTEN: Setting[Listen] = Setting(
    name="BROKER_PUBLIC_LISTEN",
    section=Section.PROCESS,
    parse=parsers.listen_address,
    default="127.0.0.1:8000",
    meaning="The address of the public listener, for browsers: `/auth/google/*` and `/connections`."
    " `host:port`, or `[address]:port` for IPv6.",
    example="[::]:8000",
)
INTERNAL_LISTEN: Setting[Listen] = Setting(
    name="BROKER_INTERNAL_LISTEN",
    section=Section.PROCESS,
    parse=parsers.listen_address,
    default="127.0.0.1:8001",
    meaning="The address of the internal listener, for callers: `/v1/*` and `/oauth/token`.",
    example="0.0.0.0:8001",
)
OPS_LISTEN: Setting[Listen] = Setting(
    name="BROKER_OPS_LISTEN",
    section=Section.PROCESS,
    parse=parsers.listen_address,
    default="127.0.0.1:8002",
    meaning="The address of the ops listener: `/metrics`, `/livez` and `/readyz`.",
    example="0.0.0.0:8002",
)
TRUSTED_PROXIES: Setting[tuple[IPv4Network | IPv6Network, ...]] = Setting(
    name="BROKER_TRUSTED_PROXIES",
    section=Section.PROCESS,
    parse=parsers.networks,
    meaning="Addresses and networks of the reverse proxies, with commas between. The client address"
    " of a request through them is the nearest one in `X-Forwarded-For` or `Forwarded` that is not"
    " a trusted proxy. Without it, all clients behind a proxy share one rate limit.",
    example="10.0.0.0/8,192.0.2.7",
)
CALLERS_FILE: Setting[Path] = Setting(
    name="BROKER_CALLERS_FILE",
    section=Section.PROCESS,
    parse=Path,
    required="the YAML file of callers (`broker callers new`)",
    meaning="The path of the callers file. A running broker reads it again when it changes.",
    example="/etc/broker/callers.yaml",
)
LOG_LEVEL: Setting[str] = Setting(
    name="BROKER_LOG_LEVEL",
    section=Section.PROCESS,
    parse=parsers.log_level,
    default="INFO",
    meaning="`DEBUG`, `INFO`, `WARNING` or `ERROR`, in any case. Logs are JSON lines on stdout.",
    example="DEBUG",
)

REDIRECT_URI: Setting[tuple[str, ...]] = Setting(
    name="GOOGLE_REDIRECT_URI",
    section=Section.GOOGLE,
    parse=parsers.redirect_uris,
    required="the callback's address as registered at Google",
    meaning="The callback URL to which Google redirects browsers, exactly as registered at Google:"
    f" `https://<host>{parsers.CALLBACK_PATH}`. Separate several with commas; the first is"
    " the default. A connect link has the origin of its redirect URI. https; plain http only on a"
    " loopback host.",
    example=f"https://app.example.com{parsers.CALLBACK_PATH}",
)
SCOPES: Setting[tuple[str, ...]] = Setting(
    name="GOOGLE_SCOPES",
    section=Section.GOOGLE,
    parse=parsers.scopes,
    required="all scopes that a link may request",
    meaning="All scopes that a link may request, with spaces (not commas) between. `openid` and"
    " `email` are always added: without them Google does not say which account consented.",
    example="https://www.googleapis.com/auth/calendar.readonly",
)
DISCOVERY_URL: Setting[str] = Setting(
    name="GOOGLE_DISCOVERY_URL",
    section=Section.GOOGLE,
    parse=parsers.secure_url,
    default=GOOGLE_DISCOVERY_URL,
    meaning="The OpenID Connect discovery document, from which the broker reads Google's endpoints."
    " https; plain http only on a loopback host.",
    example="http://localhost:8085/.well-known/openid-configuration",
)

SECRET_SOURCE: Setting[Literal["env", "file", "vault"]] = Setting(
    name="BROKER_SECRET_SOURCE",
    section=Section.OAUTH_CLIENT,
    parse=one_of("env", "file", "vault", later="aws"),
    default="env",
    meaning="Where the broker reads the OAuth client's id and secret: `env`, `file` or `vault`. It"
    " reads them again every ten seconds, and immediately when Google rejects the client.",
    example="vault",
)
CLIENT_ID: Setting[Secret] = Setting(
    name="GOOGLE_CLIENT_ID",
    section=Section.OAUTH_CLIENT,
    parse=Secret,
    required="the OAuth client's id from Google's console",
    if_unset="required for `env`",
    meaning="The OAuth client's id.",
    is_secret=True,
)
CLIENT_SECRET: Setting[Secret] = Setting(
    name="GOOGLE_CLIENT_SECRET",
    section=Section.OAUTH_CLIENT,
    parse=Secret,
    required="the OAuth client's secret",
    if_unset="required for `env`",
    meaning="The OAuth client's secret. In a file, it can be rotated without a restart.",
    is_secret=True,
)
CREDENTIALS_FILE: Setting[Path] = Setting(
    name="GOOGLE_CREDENTIALS_FILE",
    section=Section.OAUTH_CLIENT,
    parse=Path,
    required="the credentials.json from Google's console",
    if_unset="required for `file`",
    meaning="The path of the `credentials.json` that Google's console downloads (`web` or"
    " `installed`). It can be replaced without a restart.",
    example="/etc/broker/credentials.json",
)
VAULT_ADDR: Setting[tuple[str, ...]] = Setting(
    name="VAULT_ADDR",
    section=Section.OAUTH_CLIENT,
    parse=parsers.vault_addresses,
    required="the address of Vault or OpenBao",
    if_unset="required for `vault`",
    meaning="The address of Vault or OpenBao. Separate several with commas; they are tried in"
    " order, and may be separate clusters. https; plain http only on a loopback host.",
    example="https://vault.example.com:8200",
)
VAULT_NAMESPACE: Setting[str | None] = Setting(
    name="VAULT_NAMESPACE",
    section=Section.OAUTH_CLIENT,
    parse=parsers.text_or_none,
    meaning="The namespace of the login and of the secret.",
    example="team-a",
)
VAULT_AUTH: Setting[Literal["token", "approle", "kubernetes", "jwt"]] = Setting(
    name="VAULT_AUTH",
    section=Section.OAUTH_CLIENT,
    parse=one_of("token", "approle", "kubernetes", "jwt"),
    default="token",
    meaning="The auth method: `token`, `approle`, `kubernetes` or `jwt`, each at its default mount"
    " (such as `auth/kubernetes`).",
    example="kubernetes",
)
VAULT_TOKEN: Setting[Secret] = Setting(
    name="VAULT_TOKEN",
    section=Section.OAUTH_CLIENT,
    parse=Secret,
    required="the token to read the secret with",
    if_unset="required for `token`",
    meaning="The token to read the secret with. The broker renews it if it is renewable. It is sent"
    " to every address of `VAULT_ADDR`: use it only with the servers of one cluster.",
    is_secret=True,
)
VAULT_ROLE_ID: Setting[Secret] = Setting(
    name="VAULT_ROLE_ID",
    section=Section.OAUTH_CLIENT,
    parse=Secret,
    required="the AppRole's role id",
    if_unset="required for `approle`",
    meaning="The AppRole's role id.",
    is_secret=True,
)
VAULT_SECRET_ID: Setting[Secret] = Setting(
    name="VAULT_SECRET_ID",
    section=Section.OAUTH_CLIENT,
    parse=Secret,
    required="the AppRole's secret id",
    if_unset="required for `approle`",
    meaning="The AppRole's secret id.",
    is_secret=True,
)
VAULT_ROLE: Setting[str] = Setting(
    name="VAULT_ROLE",
    section=Section.OAUTH_CLIENT,
    parse=str,
    required="the role to log in as",
    if_unset="required for `kubernetes` and `jwt`",
    meaning=f"The role to log in as, with the token in `{PROJECTED_TOKEN}`, which is read at each"
    " login.",
    example="token-broker",
)
VAULT_KV_MOUNT: Setting[str] = Setting(
    name="VAULT_KV_MOUNT",
    section=Section.OAUTH_CLIENT,
    parse=str,
    default="secret",
    meaning="The mount of the KV v2 secrets engine.",
    example="kv",
)
VAULT_KV_PATH: Setting[str] = Setting(
    name="VAULT_KV_PATH",
    section=Section.OAUTH_CLIENT,
    parse=str,
    default="token-broker/google",
    meaning="The path of the secret with the fields `client_id` and `client_secret`, without the"
    " mount and without `data/`.",
    example="team-a/google",
)

DATABASE_URL: Setting[Secret] = Setting(
    name="DATABASE_URL",
    section=Section.STORAGE,
    parse=parsers.database_url,
    required="where PostgreSQL is",
    meaning="The URL of PostgreSQL: `postgresql://user:password@host:5432/name`. On another"
    " machine, add `?sslmode=verify-full&sslrootcert=…`. Separate several hosts with commas.",
    example="postgresql://broker@db/broker",
    is_secret=True,
)
DATABASE_REPLICA_URL: Setting[Secret | None] = Setting(
    name="DATABASE_REPLICA_URL",
    section=Section.STORAGE,
    parse=parsers.optional_database_url,
    meaning="The URL of a streaming replica, which the broker reads while the primary is"
    " unavailable.",
    example="postgresql://broker@db-replica/broker",
    is_secret=True,
)
SECRET_KEY: Setting[tuple[Secret, ...]] = Setting(
    name="SECRET_KEY",
    section=Section.STORAGE,
    parse=parsers.secret_keys,
    required="at least 32 random bytes, `openssl rand -base64 48`",
    meaning="At least 32 bytes (`openssl rand -base64 48`). Seals the stored tokens; signs links,"
    " state, cookies and the audit trail. Separate several with commas: the first seals and"
    " signs, all open and verify. Keep a copy apart from the database's backups: without it, every"
    " user must consent again.",
    is_secret=True,
)
KEY_SOURCE: Setting[Literal["local"]] = Setting(
    name="BROKER_KEY_SOURCE",
    section=Section.STORAGE,
    parse=one_of("local", later="vault-transit"),
    default="local",
    meaning="Where the sealing key comes from. This release has only `local`: derived from"
    " `SECRET_KEY`.",
)
ACCESS_TOKENS: Setting[Literal["sealed", "memory"]] = Setting(
    name="BROKER_ACCESS_TOKENS",
    section=Section.STORAGE,
    parse=one_of("sealed", "memory"),
    default="sealed",
    meaning="`sealed`: access tokens are also stored in the database, sealed; replicas share them,"
    " and they survive a restart. `memory`: access tokens are never written anywhere.",
    example="memory",
)
STALE_TOKENS_AT_MOST: Setting[timedelta | None] = Setting(
    name="BROKER_STALE_TOKENS_AT_MOST",
    section=Section.STORAGE,
    parse=parsers.stale_limit,
    if_unset="until they expire",
    meaning="How many seconds (2 to 86400) a replica serves cached tokens without an answer from"
    " the primary. After that it drops its cache, and caches nothing until the primary answers.",
    example="60",
)
AUDIT_RETENTION_DAYS: Setting[timedelta | None] = Setting(
    name="BROKER_AUDIT_RETENTION_DAYS",
    section=Section.STORAGE,
    parse=parsers.retention,
    default="400",
    meaning="How many days audit records are kept; `0` for ever.",
    example="730",
)

WEBHOOK_URL: Setting[str] = Setting(
    name="BROKER_WEBHOOK_URL",
    section=Section.WEBHOOKS,
    parse=parsers.webhook_url,
    required="the address that receives webhooks; or unset BROKER_WEBHOOK_SECRET",
    if_unset="no webhooks",
    meaning="The address that receives an event when a grant is connected, needs reauthorization,"
    " recovers or is revoked. https; plain http only on a loopback host.",
    example="https://app.example.com/hooks",
)
WEBHOOK_SECRET: Setting[tuple[Secret, ...]] = Setting(
    name="BROKER_WEBHOOK_SECRET",
    section=Section.WEBHOOKS,
    parse=parsers.webhook_secrets,
    required='`echo "whsec_$(openssl rand -base64 32)"`, which the receiver needs too',
    if_unset="required with the URL",
    meaning="The key that signs webhooks: `whsec_` and the base64 of 24 to 64 random bytes"
    ' (`echo "whsec_$(openssl rand -base64 32)"`). Separate several with commas; all of them'
    " sign.",
    is_secret=True,
)

SETTINGS: tuple[Setting[Any], ...] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Setting)
)
"""All of the above."""

SETTING_NAMES = frozenset(setting.name for setting in SETTINGS)
"""All names, without the `<NAME>_FILE` of secrets."""

SECRET_NAMES = frozenset(setting.name for setting in SETTINGS if setting.is_secret)
"""The settings that may come from a file named by `<NAME>_FILE`."""
