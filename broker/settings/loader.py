"""From an environment to `Settings`: what each setting must look like, and what stands for none."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from broker.secret import Secret
from broker.settings.database_tls import is_way_verified
from broker.settings.model import GOOGLE_DISCOVERY_URL, IDENTITY_SCOPES, Listen, Settings
from broker.settings.names import suspicious_names
from broker.settings.proxies_and_trust import check_way_out
from broker.settings.reader import Reader
from broker.settings.sources import read_source
from broker.settings.urls import is_database_address, is_secure_url
from broker.settings.webhook_receiver import read_webhook_receiver

_DRIVERS_MODE = "PGSSLMODE"
"""No setting of ours: the driver reads it."""

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_LONGEST_RETENTION_DAYS = 36_500
_STALE_SECONDS = range(2, 86_401)
"""Less than two would be over between two polls on a busy machine; no token lives for a day."""


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Validate the environment. Raises `SettingsError` with every problem at once."""
    return _Loader(Reader(environ)).load(tuple(suspicious_names(environ)))


def load_database_url(environ: Mapping[str, str]) -> Secret:
    """Only `DATABASE_URL`, for the commands that need nothing else. Raises `SettingsError`."""
    reader = Reader(environ)
    url = _Loader(reader).database_url()
    reader.raise_problems()
    return url


def load_ops_listen(environ: Mapping[str, str]) -> Listen:
    """Only `BROKER_OPS_LISTEN`. Raises `SettingsError`."""
    reader = Reader(environ)
    listen = _Loader(reader).ops_listen()
    reader.raise_problems()
    return listen


def load_way_out(environ: Mapping[str, str]) -> None:
    """Only what the calls to others depend on. Raises `SettingsError`."""
    reader = Reader(environ)
    check_way_out(reader)
    reader.raise_problems()


def load_storage(environ: Mapping[str, str]) -> tuple[Secret, tuple[Secret, ...]]:
    """`DATABASE_URL` and the keys in `SECRET_KEY`. Raises `SettingsError`."""
    reader = Reader(environ)
    loader = _Loader(reader)
    url, keys = loader.database_url(), loader.secret_keys()
    reader.raise_problems()
    return url, keys


class _Loader:
    """Goes through all settings of one environment."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def load(self, warnings: tuple[str, ...]) -> Settings:
        self._refuse_unsupported()
        settings = Settings(
            public_listen=self._listen("BROKER_PUBLIC_LISTEN", "127.0.0.1:8000"),
            internal_listen=self._listen("BROKER_INTERNAL_LISTEN", "127.0.0.1:8001"),
            ops_listen=self.ops_listen(),
            redirect_uris=self._redirect_uris(),
            scopes=self._scopes(),
            discovery_url=self._discovery_url(),
            database_url=self.database_url(),
            database_replica_url=self._replica_url(),
            secret_keys=self.secret_keys(),
            secret_source=read_source(self._reader),
            access_tokens=self._access_tokens(),
            stale_tokens_at_most=self._stale_tokens_at_most(),
            audit_retention=self._audit_retention(),
            callers_file=self._callers_file(),
            webhooks=read_webhook_receiver(self._reader),
            log_level=self._log_level(),
            trusted_proxies=self._trusted_proxies(),
            warnings=warnings,
        )
        settings = replace(settings, unverified_databases=self._unverified_databases(settings))
        self._refuse_shared_ports(settings)
        check_way_out(self._reader)
        self._reader.raise_problems()
        return settings

    def ops_listen(self) -> Listen:
        return self._listen("BROKER_OPS_LISTEN", "127.0.0.1:8002")

    def _listen(self, name: str, default: str) -> Listen:
        text = self._reader.text(name) or default
        match = re.fullmatch(
            r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})", text
        )
        if match is None or int(match["port"]) > 65535:
            self._reader.problem(f"{name} must be host:port, for example {default}")
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
                self._reader.problem(f"{name} and {seen[listen]} are the same address")
            seen[listen] = name

    def _redirect_uris(self) -> tuple[str, ...]:
        uris = tuple(
            uri.strip()
            for uri in self._reader.text("GOOGLE_REDIRECT_URI").split(",")
            if uri.strip()
        )
        if not uris:
            self._reader.problem(
                "GOOGLE_REDIRECT_URI is missing: the callback's address as registered at Google, "
                "for example https://app.example.com/auth/google/callback"
            )
        for number, uri in enumerate(uris, start=1):
            which = "GOOGLE_REDIRECT_URI" + (f", number {number}" if len(uris) > 1 else "")
            self._check_redirect_uri(which, uri)
        if len(set(uris)) != len(uris):
            self._reader.problem("GOOGLE_REDIRECT_URI names one address twice")
        return uris

    def _check_redirect_uri(self, which: str, uri: str) -> None:
        if not is_secure_url(uri):
            self._reader.problem(f"{which} must be https (plain http only on a loopback host)")
            return
        parts = urlsplit(uri)
        if parts.query or parts.fragment or parts.username is not None:
            self._reader.problem(f"{which} must have no query, fragment or user name")
        if parts.path != "/auth/google/callback":
            self._reader.problem(f"{which} must have the path /auth/google/callback")

    def _scopes(self) -> tuple[str, ...]:
        asked = self._reader.text("GOOGLE_SCOPES").split()
        if not asked:
            self._reader.problem(
                "GOOGLE_SCOPES is missing: all scopes that any link may ask for, for example "
                "https://www.googleapis.com/auth/calendar.readonly"
            )
        if any("," in scope for scope in asked):
            self._reader.problem("GOOGLE_SCOPES has a comma: separate scopes with spaces")
        elif not all(re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope) for scope in asked):
            self._reader.problem("GOOGLE_SCOPES has a name with a character that no scope may have")
        return tuple(dict.fromkeys((*IDENTITY_SCOPES, *asked)))

    def _discovery_url(self) -> str:
        url = self._reader.text("GOOGLE_DISCOVERY_URL") or GOOGLE_DISCOVERY_URL
        if not is_secure_url(url):
            self._reader.problem(
                "GOOGLE_DISCOVERY_URL must be an https address (plain http only on a loopback host)"
            )
        return url

    def database_url(self) -> Secret:
        return self._database_address(
            "DATABASE_URL", "where PostgreSQL is, for example postgresql://broker@db/broker"
        )

    def _replica_url(self) -> Secret | None:
        if not (
            self._reader.text("DATABASE_REPLICA_URL")
            or self._reader.text("DATABASE_REPLICA_URL_FILE")
        ):
            return None
        return self._database_address(
            "DATABASE_REPLICA_URL", "where a streaming replica of PostgreSQL is"
        )

    def _database_address(self, name: str, hint: str) -> Secret:
        url = self._reader.secret_now(name, hint)
        if url and not re.match(r"postgres(ql)?://", url.reveal()):
            self._reader.problem(f"{name} must begin with postgresql://")
        elif url and not is_database_address(url.reveal()):
            self._reader.problem(
                f"{name} can't be read as an address; are special characters in its password "
                "percent-encoded? (/ is %2F, ? is %3F, # is %23, @ is %40)"
            )
        return url

    def _unverified_databases(self, settings: Settings) -> tuple[str, ...]:
        urls = {
            "DATABASE_URL": settings.database_url,
            "DATABASE_REPLICA_URL": settings.database_replica_url,
        }
        mode = self._reader.text(_DRIVERS_MODE)
        return tuple(
            name
            for name, url in urls.items()
            if url is not None and not is_way_verified(url.reveal(), mode)
        )

    def secret_keys(self) -> tuple[Secret, ...]:
        text = self._reader.secret_now(
            "SECRET_KEY", "at least 32 random bytes, `openssl rand -base64 48`"
        )
        keys = tuple(Secret(key.strip()) for key in text.reveal().split(",") if key.strip())
        for number, key in enumerate(keys, start=1):
            if len(key.reveal().encode()) < 32:
                self._reader.problem(
                    f"SECRET_KEY: key {number} of {len(keys)} is shorter than 32 bytes"
                )
        if text and not keys:
            self._reader.problem("SECRET_KEY holds no key")
        return keys

    def _access_tokens(self) -> Literal["sealed", "memory"]:
        mode = self._reader.text("BROKER_ACCESS_TOKENS") or "sealed"
        if mode == "memory":
            return "memory"
        if mode != "sealed":
            self._reader.problem("BROKER_ACCESS_TOKENS must be sealed or memory")
        return "sealed"

    def _stale_tokens_at_most(self) -> timedelta | None:
        text = self._reader.text("BROKER_STALE_TOKENS_AT_MOST")
        if not text:
            return None
        if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) not in _STALE_SECONDS:
            self._reader.problem(
                "BROKER_STALE_TOKENS_AT_MOST must be a whole number of seconds from "
                f"{_STALE_SECONDS[0]} to {_STALE_SECONDS[-1]}; leave it unset to serve cached "
                "tokens until they expire"
            )
            return None
        return timedelta(seconds=int(text))

    def _audit_retention(self) -> timedelta | None:
        text = self._reader.text("BROKER_AUDIT_RETENTION_DAYS") or "400"
        if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > _LONGEST_RETENTION_DAYS:
            self._reader.problem(
                "BROKER_AUDIT_RETENTION_DAYS must be a number of days up to "
                f"{_LONGEST_RETENTION_DAYS}, or 0 to keep audit records for ever"
            )
            return None
        return timedelta(days=int(text)) if int(text) else None

    def _callers_file(self) -> Path:
        path = self._reader.text("BROKER_CALLERS_FILE")
        if not path:
            self._reader.problem(
                "BROKER_CALLERS_FILE is missing: the YAML file of callers (`broker callers new`)"
            )
        return Path(path)

    def _log_level(self) -> str:
        level = (self._reader.text("BROKER_LOG_LEVEL") or "INFO").upper()
        if level not in _LOG_LEVELS:
            self._reader.problem("BROKER_LOG_LEVEL must be one of " + ", ".join(_LOG_LEVELS))
            return "INFO"
        return level

    def _trusted_proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        networks = []
        for text in self._reader.text("BROKER_TRUSTED_PROXIES").split(","):
            try:
                if text.strip():
                    networks.append(ip_network(text.strip()))
            except ValueError:
                self._reader.problem(
                    "BROKER_TRUSTED_PROXIES must be addresses or networks with commas between, for "
                    "example 10.0.0.0/8,192.0.2.7 (in a network, the bits behind the prefix are 0)"
                )
                break
        return tuple(networks)

    def _refuse_unsupported(self) -> None:
        key_source = self._reader.text("BROKER_KEY_SOURCE") or "local"
        if key_source == "vault-transit":
            self._reader.problem(
                "BROKER_KEY_SOURCE=vault-transit is not in this release; use local"
            )
        elif key_source != "local":
            self._reader.problem("BROKER_KEY_SOURCE must be local")
