"""Environment in, one frozen and validated object out.

Every problem is found before any is reported, and none of the reports prints a value that could be
a secret. Nothing else in the product reads the environment.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from broker.secret import Secret

GOOGLE_DISCOVERY_URL = "https://accounts.google.com/.well-known/openid-configuration"
IDENTITY_SCOPES = ("openid", "email")
"""Always asked for: without them Google sends no ID token, and the account stays unknown."""

SECRET_NAMES = frozenset(
    {
        "GOOGLE_CLIENT_ID",
        "GOOGLE_CLIENT_SECRET",
        "DATABASE_URL",
        "DATABASE_REPLICA_URL",
        "SECRET_KEY",
        "VAULT_TOKEN",
        "VAULT_ROLE_ID",
        "VAULT_SECRET_ID",
    }
)
"""Settings that may also come from a file named by `<NAME>_FILE`."""

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(Exception):
    """The environment can't be used; `problems` has one actionable line each, free of secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UnreadableSecretError(Exception):
    """A secret's file is missing, unreadable or empty; the message names the setting and file."""


@dataclass(frozen=True, slots=True)
class SecretSetting:
    """A secret as configured: a value, or the file that holds it.

    The file is read anew at each `read()`, so that a secret rotated on disk is noticed.
    """

    name: str
    value: Secret | None = None
    path: Path | None = None

    def read(self) -> Secret:
        """The secret now. Raises `UnreadableSecretError`."""
        if self.value is not None:
            return self.value
        assert self.path is not None  # noqa: S101  (one of the two is always set)
        try:
            text = self.path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UnreadableSecretError(
                f"{self.name}_FILE: can't read {_shown(self.path)}: {reason}"
            ) from error
        if not text:
            raise UnreadableSecretError(f"{self.name}_FILE: {_shown(self.path)} is empty")
        return Secret(text)


def _shown(path: Path) -> str:
    """A path for people; not, if it might be the secret itself, put where its file belongs."""
    folder = path.parent
    is_path = path.is_absolute() and folder != folder.parent and os.path.isdir(folder)  # noqa: PTH112  (takes anything)
    return str(path) if is_path else "the file"


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
class VaultSource:
    """`BROKER_SECRET_SOURCE=vault`: KV v2 of HashiCorp Vault or OpenBao."""

    addresses: tuple[str, ...]
    """Tried in order."""
    namespace: str | None
    login: VaultTokenLogin | VaultAppRoleLogin
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
    clients_file: Path
    log_level: str
    warnings: tuple[str, ...] = ()
    """Settings that are understood but do nothing in this release."""


def is_loopback_host(host: str | None) -> bool:
    """Whether a URL's host is this machine by name or number (RFC 8252 §7.3, RFC 6761 §6.3)."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure_url(url: str) -> bool:
    """https anywhere, or plain http on a loopback host."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and is_loopback_host(parts.hostname)


def _is_database_address(url: str) -> bool:
    """Whether a driver could make out host and port; several hosts may have commas between."""
    try:
        parts = urlsplit(url)
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    host = r"(\[[0-9a-fA-F:.]+\]|[^:@\[\]]*)(:[0-9]{1,5})?"
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return not parts.fragment and all(re.fullmatch(host, each) for each in hosts)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Validate the environment. Raises `SettingsError` with every problem at once."""
    return _Loader(environ).load()


def load_database_url(environ: Mapping[str, str]) -> Secret:
    """Only `DATABASE_URL`, for the commands that need nothing else. Raises `SettingsError`."""
    loader = _Loader(environ)
    url = loader.database_url()
    loader.raise_problems()
    return url


class _Loader:
    """Reads one environment and collects all that is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._problems: list[str] = []
        self._warnings: list[str] = []

    def load(self) -> Settings:
        self._refuse_unsupported()
        settings = Settings(
            public_listen=self._listen("BROKER_PUBLIC_LISTEN", "127.0.0.1:8000"),
            internal_listen=self._listen("BROKER_INTERNAL_LISTEN", "127.0.0.1:8001"),
            ops_listen=self._listen("BROKER_OPS_LISTEN", "127.0.0.1:8002"),
            redirect_uris=self._redirect_uris(),
            scopes=self._scopes(),
            discovery_url=self._discovery_url(),
            database_url=self.database_url(),
            database_replica_url=self._replica_url(),
            secret_keys=self._secret_keys(),
            secret_source=self._secret_source(),
            access_tokens=self._access_tokens(),
            clients_file=self._clients_file(),
            log_level=self._log_level(),
            warnings=tuple(self._warnings),
        )
        self._refuse_shared_ports(settings)
        self.raise_problems()
        return settings

    def raise_problems(self) -> None:
        if self._problems:
            raise SettingsError(self._problems)

    def _get(self, name: str) -> str:
        value = self._environ.get(name, "").strip()
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            self._problem(f"{name} is not UTF-8 text")
            return ""
        return value

    def _problem(self, text: str) -> None:
        self._problems.append(text)

    def _secret(self, name: str, hint: str) -> SecretSetting:
        """A secret from `name` or the file `<name>_FILE`; both at once is a mistake."""
        value, path = self._get(name), self._get(f"{name}_FILE")
        if value and path:
            self._problem(f"{name} and {name}_FILE are both set; keep one")
        elif not value and not path:
            self._problem(f"{name} is missing: {hint} (or put it in a file, {name}_FILE)")
        if not path:
            return SecretSetting(name, value=Secret(value))
        setting = SecretSetting(name, path=Path(path))
        try:
            setting.read()
        except UnreadableSecretError as error:
            self._problem(str(error))
        return setting

    def _secret_now(self, name: str, hint: str) -> Secret:
        problems_before = len(self._problems)
        setting = self._secret(name, hint)
        return Secret("") if len(self._problems) > problems_before else setting.read()

    def _listen(self, name: str, default: str) -> Listen:
        text = self._get(name) or default
        match = re.fullmatch(
            r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})", text
        )
        if match is None or int(match["port"]) > 65535:
            self._problem(f"{name} must be host:port, for example {default}")
            return Listen("127.0.0.1", 0)
        return Listen(match["six"] or match["host"], int(match["port"]))

    def _refuse_shared_ports(self, settings: Settings) -> None:
        listeners = {
            "BROKER_PUBLIC_LISTEN": settings.public_listen,
            "BROKER_INTERNAL_LISTEN": settings.internal_listen,
            "BROKER_OPS_LISTEN": settings.ops_listen,
        }
        seen: dict[Listen, str] = {}
        for name, listen in listeners.items():
            if listen.port and listen in seen:
                self._problem(f"{name} and {seen[listen]} are the same address")
            seen[listen] = name

    def _redirect_uris(self) -> tuple[str, ...]:
        uris = tuple(
            uri.strip() for uri in self._get("GOOGLE_REDIRECT_URI").split(",") if uri.strip()
        )
        if not uris:
            self._problem(
                "GOOGLE_REDIRECT_URI is missing: the callback's address as registered at Google, "
                "for example https://app.example.com/auth/google/callback"
            )
        for number, uri in enumerate(uris, start=1):
            which = "GOOGLE_REDIRECT_URI" + (f", number {number}" if len(uris) > 1 else "")
            self._check_redirect_uri(which, uri)
        if len(set(uris)) != len(uris):
            self._problem("GOOGLE_REDIRECT_URI names one address twice")
        return uris

    def _check_redirect_uri(self, which: str, uri: str) -> None:
        if not is_secure_url(uri):
            self._problem(f"{which} must be https (plain http only on a loopback host)")
            return
        parts = urlsplit(uri)
        if parts.query or parts.fragment or parts.username is not None:
            self._problem(f"{which} must have no query, fragment or user name")
        if parts.path != "/auth/google/callback":
            self._problem(f"{which} must have the path /auth/google/callback")

    def _scopes(self) -> tuple[str, ...]:
        asked = self._get("GOOGLE_SCOPES").split()
        if not asked:
            self._problem(
                "GOOGLE_SCOPES is missing: all scopes that any link may ask for, for example "
                "https://www.googleapis.com/auth/calendar.readonly"
            )
        if not all(re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope) for scope in asked):
            self._problem("GOOGLE_SCOPES has a name with a character that no scope may have")
        return tuple(dict.fromkeys((*IDENTITY_SCOPES, *asked)))

    def _discovery_url(self) -> str:
        url = self._get("GOOGLE_DISCOVERY_URL") or GOOGLE_DISCOVERY_URL
        if not is_secure_url(url):
            self._problem(
                "GOOGLE_DISCOVERY_URL must be an https address (plain http only on a loopback host)"
            )
        return url

    def database_url(self) -> Secret:
        return self._database_address(
            "DATABASE_URL", "where PostgreSQL is, for example postgresql://broker@db/broker"
        )

    def _replica_url(self) -> Secret | None:
        if not (self._get("DATABASE_REPLICA_URL") or self._get("DATABASE_REPLICA_URL_FILE")):
            return None
        return self._database_address(
            "DATABASE_REPLICA_URL", "where a streaming replica of PostgreSQL is"
        )

    def _database_address(self, name: str, hint: str) -> Secret:
        url = self._secret_now(name, hint)
        if url and not re.match(r"postgres(ql)?://", url.reveal()):
            self._problem(f"{name} must begin with postgresql://")
        elif url and not _is_database_address(url.reveal()):
            self._problem(
                f"{name} can't be read as an address; are special characters in its password "
                "percent-encoded? (/ is %2F, ? is %3F, # is %23, @ is %40)"
            )
        return url

    def _secret_keys(self) -> tuple[Secret, ...]:
        text = self._secret_now("SECRET_KEY", "at least 32 random bytes, `openssl rand -base64 48`")
        keys = tuple(Secret(key.strip()) for key in text.reveal().split(",") if key.strip())
        for number, key in enumerate(keys, start=1):
            if len(key.reveal().encode()) < 32:
                self._problem(f"SECRET_KEY: key {number} of {len(keys)} is shorter than 32 bytes")
        if text and not keys:
            self._problem("SECRET_KEY holds no key")
        return keys

    def _secret_source(self) -> SecretSource:
        name = self._get("BROKER_SECRET_SOURCE") or "env"
        if name == "file":
            return self._file_source()
        if name == "vault":
            return self._vault_source()
        if name == "aws":
            self._problem("BROKER_SECRET_SOURCE=aws is not in this release; use env, file or vault")
        elif name != "env":
            self._problem("BROKER_SECRET_SOURCE must be one of env, file, vault")
        return EnvironmentSource(
            client_id=self._secret(
                "GOOGLE_CLIENT_ID", "the OAuth client's id from Google's console"
            )
            if name == "env"
            else SecretSetting("GOOGLE_CLIENT_ID", value=Secret("")),
            client_secret=self._secret("GOOGLE_CLIENT_SECRET", "the OAuth client's secret")
            if name == "env"
            else SecretSetting("GOOGLE_CLIENT_SECRET", value=Secret("")),
        )

    def _file_source(self) -> FileSource:
        path = self._get("GOOGLE_CREDENTIALS_FILE")
        if not path:
            self._problem(
                "GOOGLE_CREDENTIALS_FILE is missing: the credentials.json from Google's console"
            )
        return FileSource(Path(path))

    def _vault_source(self) -> VaultSource:
        addresses = tuple(
            a.strip().rstrip("/") for a in self._get("VAULT_ADDR").split(",") if a.strip()
        )
        if not addresses:
            self._problem("VAULT_ADDR is missing: for example https://vault.example.com:8200")
        if not all(map(is_secure_url, addresses)):
            self._problem(
                "VAULT_ADDR must be one or more https addresses with commas between (plain http "
                "only on a loopback host)"
            )
        return VaultSource(
            addresses=addresses,
            namespace=self._get("VAULT_NAMESPACE") or None,
            login=self._vault_login(),
            kv_mount=self._get("VAULT_KV_MOUNT") or "secret",
            kv_path=self._get("VAULT_KV_PATH") or "token-broker/google",
        )

    def _vault_login(self) -> VaultTokenLogin | VaultAppRoleLogin:
        method = self._get("VAULT_AUTH") or "token"
        if method == "approle":
            return VaultAppRoleLogin(
                role_id=self._secret("VAULT_ROLE_ID", "the AppRole's role id"),
                secret_id=self._secret("VAULT_SECRET_ID", "the AppRole's secret id"),
            )
        if method in ("kubernetes", "jwt"):
            self._problem(f"VAULT_AUTH={method} is not in this release; use token or approle")
        elif method != "token":
            self._problem("VAULT_AUTH must be one of token, approle")
        if method != "token":
            return VaultTokenLogin(SecretSetting("VAULT_TOKEN", value=Secret("")))
        return VaultTokenLogin(self._secret("VAULT_TOKEN", "the token to read the secret with"))

    def _access_tokens(self) -> Literal["sealed", "memory"]:
        mode = self._get("BROKER_ACCESS_TOKENS") or "sealed"
        if mode == "memory":
            return "memory"
        if mode != "sealed":
            self._problem("BROKER_ACCESS_TOKENS must be sealed or memory")
        return "sealed"

    def _clients_file(self) -> Path:
        path = self._get("BROKER_CLIENTS_FILE")
        if not path:
            self._problem(
                "BROKER_CLIENTS_FILE is missing: the YAML file of callers (`broker clients new`)"
            )
        return Path(path)

    def _log_level(self) -> str:
        level = (self._get("BROKER_LOG_LEVEL") or "INFO").upper()
        if level not in _LOG_LEVELS:
            self._problem("BROKER_LOG_LEVEL must be one of " + ", ".join(_LOG_LEVELS))
            return "INFO"
        return level

    def _refuse_unsupported(self) -> None:
        key_source = self._get("BROKER_KEY_SOURCE") or "local"
        if key_source == "vault-transit":
            self._problem("BROKER_KEY_SOURCE=vault-transit is not in this release; use local")
        elif key_source != "local":
            self._problem("BROKER_KEY_SOURCE must be local")
